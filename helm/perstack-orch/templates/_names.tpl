{{/* Names, and the labels that all objects of the release share. */}}

{{- define "perstack.fullname" -}}
{{- $named := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- .Values.fullnameOverride | default $named | trunc 30 | trimSuffix "-" -}}
{{- end }}

{{- define "perstack.coordinator" -}}
{{ include "perstack.fullname" . }}-coordinator
{{- end }}

{{- define "perstack.sandbox" -}}
{{ include "perstack.fullname" . }}-sandbox
{{- end }}

{{/* Helm itself adds app.kubernetes.io/managed-by: Helm, by which `prune` distinguishes these objects from those of jobs. */}}
{{- define "perstack.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: perstack-orch
{{- end }}

{{- define "perstack.metadata" -}}
name: {{ include "perstack.fullname" . }}
namespace: {{ .Release.Namespace }}
labels: {{- include "perstack.labels" . | nindent 2 }}
{{- end }}

{{/* Selectors of Sandboxes, of any creator, and of coordinators of this release. */}}
{{- define "perstack.sandboxSelector" -}}
matchLabels: {app.kubernetes.io/managed-by: perstack-orch}
matchExpressions: [{key: perstack.ai/sandbox, operator: Exists}]
{{- end }}

{{- define "perstack.coordinatorSelector" -}}
matchLabels: {app.kubernetes.io/managed-by: perstack-orch, app.kubernetes.io/instance: {{ .Release.Name }}}
matchExpressions: [{key: perstack.ai/part, operator: In, values: [coordinator, test]}]
{{- end }}

{{- define "perstack.coordinatorLabels" -}}
app.kubernetes.io/managed-by: perstack-orch
app.kubernetes.io/instance: {{ .Release.Name }}
perstack.ai/part: coordinator
{{- end }}

{{/* An image without its tag or digest: (list $ "runtime"). */}}
{{- define "perstack.repository" -}}
{{- $root := index . 0 -}}{{- $image := index $root.Values.image (index . 1) -}}
{{ with $root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}
{{- end }}

{{- define "perstack.image" -}}
{{- $root := index . 0 -}}{{- $image := index $root.Values.image (index . 1) -}}
{{ include "perstack.repository" . }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}
