{{/* Extra settings of Sandboxes' Pods (PodSetting), and the template of users' claims. */}}

{{- define "perstack.pods" -}}
{{- $sandbox := .Values.sandbox -}}
serviceAccountName: {{ include "perstack.sandbox" . }}
oneNode: {{ eq .Values.workspaces.accessMode "ReadWriteOnce" }}
anyUser: {{ .Values.openshift }}
userNamespace: {{ $sandbox.userNamespace }}
{{- range $name, $quantity := index .Values.resourceClasses $sandbox.resourceClass }}
{{ $name }}: {{ $quantity | quote }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $name := list "runtimeClassName" "priorityClassName" "nodeSelector" "tolerations" "annotations" "labels" "queueName" }}
{{- with index $sandbox $name }}
{{ $name }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "perstack.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  # This label identifies a claim as a workspace; the managed-by label depends on its creator.
  labels: {app.kubernetes.io/managed-by: perstack-orch, perstack.ai/part: workspace}
  {{- with .Values.workspaces.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  accessModes: [{{ .Values.workspaces.accessMode }}]
  {{- with .Values.workspaces.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .Values.workspaces.size | quote }}}}
{{- end }}
