{{/*
The coordinator of a job: what `perstack-orch run` fills in and creates, and what the Jobs and CronJobs of `runs` make.
It leaves open its name, the claim (volume and label), the Secret of the job, and its owner.
*/}}

{{/* (dict "root" $ "claim" NAME "secret" NAME "labels" {…} "own" BOOL); `own`: the operator wrote its config. */}}
{{- define "perstack.coordinatorPod" -}}
{{- $root := .root -}}{{- $values := .root.Values -}}
metadata:
  labels:
    {{- toYaml (mustMergeOverwrite (dict "sidecar.istio.io/inject" "false") $values.coordinator.labels (include "perstack.coordinatorLabels" $root | fromYaml) (.labels | default dict)) | nindent 4 }}
  annotations:
    {{- toYaml (mustMergeOverwrite (include "perstack.undisturbed" $root | fromYaml) $values.coordinator.annotations) | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "perstack.coordinator" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 30
  securityContext: {{- include "perstack.podSecurity" $root | nindent 4 }}
  {{- include "perstack.pullSecrets" $root | nindent 2 }}
  {{- with $values.coordinator.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.coordinator.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.coordinator.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq $values.workspaces.accessMode "ReadWriteOnce" }}
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        # Only the Pods of its own claim, which is filled in where the job is made: matchLabelKeys are too new.
        labelSelector: {matchLabels: {perstack.ai/claim: {{ dig "perstack.ai/claim" "" (.labels | default dict) | quote }}}}
  {{- end }}
  containers:
  - name: coordinator
    image: {{ include "perstack.image" (list $root "orchestrator") }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: [perstack-orch]
    args: [coordinate]
    workingDir: /
    env:
    {{- include (ternary "perstack.ownEnv" "perstack.submittedEnv" (.own | default false)) $root | nindent 4 }}
    {{- if or $values.envSecret $values.skillSecret }}
    # By what their names begin with, the provider's variables are told from those that skills may be given.
    envFrom:
    {{- with $values.envSecret }}
    - {prefix: PERSTACK_PROVIDER__, secretRef: {name: {{ . }}}}
    {{- end }}
    {{- with $values.skillSecret }}
    - {prefix: PERSTACK_SKILL__, secretRef: {name: {{ . }}}}
    {{- end }}
    {{- end }}
    resources: {{- toYaml $values.coordinator.resources | nindent 6 }}
    securityContext: {{- include "perstack.containerSecurity" $root | nindent 6 }}
    volumeMounts:
    - {name: claim, mountPath: /claim}
    - {name: job, mountPath: /job, readOnly: true}
    - {name: installation, mountPath: /installation, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- with $values.caBundle.configMap }}
    - {name: authorities, mountPath: /authorities, readOnly: true}
    {{- end }}
    - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  volumes:
  - name: claim
    persistentVolumeClaim: {claimName: {{ .claim | quote }}}
  - name: job
    secret: {secretName: {{ .secret | quote }}, defaultMode: 0440}
  - name: installation
    configMap: {name: {{ include "perstack.fullname" $root }}, items: [{key: pods.json, path: pods.json}]}
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- with $values.caBundle.configMap }}
  - name: authorities
    configMap: {name: {{ . }}, items: [{key: {{ $values.caBundle.key }}, path: ca.crt}]}
  {{- end }}
  - name: account
    {{- include "perstack.accountVolume" $root | nindent 4 }}
{{- end }}

{{/* A token for the API server, bound to the Pod; the account itself mounts none. */}}
{{- define "perstack.accountVolume" -}}
projected:
  defaultMode: 0440
  sources:
  - serviceAccountToken: {path: token, expirationSeconds: 3600}
  - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
  - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- define "perstack.coordinatorEnv" -}}
- {name: PERSTACK_RUNTIME_IMAGE, value: {{ include "perstack.image" (list . "runtime") | quote }}}
- {name: PERSTACK_POD_SETTING, value: /installation/pods.json}
- {name: PERSTACK_BROKER_PORT, value: "7443,7444"}
{{- with .Values.sandbox.outside }}
- {name: PERSTACK_OUTSIDE, value: {{ join " " . | quote }}}
{{- end }}
{{- with .Values.proxy.url }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
- {name: PERSTACK_PROXY_URL, value: {{ . | quote }}}
- {name: NO_PROXY, value: {{ join "," $.Values.proxy.noProxy | quote }}}
{{- end }}
{{- if .Values.caBundle.configMap }}
- {name: SSL_CERT_FILE, value: /authorities/ca.crt}
{{- end }}
{{- end }}

{{/* For a submitted coordinator: where its perstack.toml may send the provider's key. For one of `runs`: anywhere. */}}
{{- define "perstack.submittedEnv" -}}
{{ include "perstack.coordinatorEnv" . }}
{{- with .Values.provider.baseUrls }}
- {name: PERSTACK_BASE_URLS, value: {{ join " " . | quote }}}
{{- end }}
{{- with .Values.provider.headers }}
- {name: PERSTACK_HEADERS, value: {{ join " " . | quote }}}
{{- end }}
{{- end }}
{{- define "perstack.ownEnv" -}}
{{ include "perstack.coordinatorEnv" . }}
- {name: PERSTACK_BASE_URLS, value: "*"}
{{- end }}

{{- define "perstack.undisturbed" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
karpenter.sh/do-not-disrupt: "true"
sidecar.istio.io/inject: "false"
linkerd.io/inject: disabled
{{- end }}

{{- define "perstack.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
- name: {{ . }}{{ end }}
{{- end }}
{{- end }}

{{- define "perstack.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- if not .Values.openshift }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}

{{- define "perstack.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* The spec of its Job, without the template. An error of the job itself ends the Job immediately; a disruption does not count as a retry. */}}
{{- define "perstack.coordinatorJob" -}}
backoffLimit: 6
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
  - action: FailJob
    onExitCodes: {containerName: coordinator, operator: In, values: [1, 2, 4]}
  - action: Ignore
    onPodConditions: [{type: DisruptionTarget, status: "True"}]
{{- end }}
