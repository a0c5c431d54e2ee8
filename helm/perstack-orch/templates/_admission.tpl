{{/*
A ValidatingAdmissionPolicy and its binding to this namespace. Each covers one kind of object, so that the API
server can check the types of its expressions.
(dict "root" $ "name" NAME "group" GROUP "resources" [PLURAL] "operations" […] "when" CEL "variables" TEXT "rules" TEXT)
*/}}
{{- define "perstack.policy" -}}
{{- $name := printf "%s.%s.%s" (include "perstack.fullname" .root) .root.Release.Namespace .name -}}
{{- $here := dict "matchLabels" (dict "kubernetes.io/metadata.name" .root.Release.Namespace) -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels: {{- include "perstack.labels" .root | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {{ toJson $here }}
    resourceRules:
    - apiGroups: [{{ .group | quote }}]
      apiVersions: [v1]
      resources: {{ toJson .resources }}
      operations: {{ toJson .operations }}
  matchConditions:
  - name: ours
    expression: {{ .when | quote }}
  {{- with .variables }}
  variables: {{- . | nindent 2 }}
  {{- end }}
  validations: {{- .rules | nindent 2 }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels: {{- include "perstack.labels" .root | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {{ toJson $here }}
{{ end }}

{{/* A CEL list of strings. */}}
{{- define "perstack.celList" -}}
[{{ range $index, $each := . }}{{ if $index }}, {{ end }}'{{ $each }}'{{ end }}]
{{- end }}

{{/* Whether the coordinator made the request. */}}
{{- define "perstack.byCoordinator" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "perstack.coordinator" . }}'
{{- end }}

{{/* Whether a submitter made the request. */}}
{{- define "perstack.bySubmitter" -}}
false
{{- range .Values.submitters }}
{{- if eq .kind "Group" }} || '{{ .name }}' in request.userInfo.groups
{{- else if eq .kind "User" }} || request.userInfo.username == '{{ .name }}'
{{- else }} || request.userInfo.username == 'system:serviceaccount:{{ .namespace | default $.Release.Namespace }}:{{ .name }}'
{{- end }}
{{- end }}
{{- end }}

{{/* Prefixes of the names of images of one repository: any tag or digest, but no repository with a longer name. */}}
{{- define "perstack.prefixes" -}}
{{- $repository := include "perstack.repository" . -}}
prefixes: {{ list (printf "%s:" $repository) (printf "%s@" $repository) | toJson }}
{{- end }}

{{/* `template` is the path of the metadata and spec of the Pod. */}}
{{- define "perstack.podVariables" -}}
- name: pod
  expression: {{ . }}.spec
- name: containers
  expression: {{ . }}.spec.containers
- name: volumes
  expression: {{ . }}.spec.?volumes.orValue([])
- name: labels
  expression: {{ . }}.metadata.?labels.orValue({})
{{- end }}

{{/* Rules for all Pods of the release. */}}
{{- define "perstack.hardened" -}}
- message: the host's network, processes and memory are out of reach of Pods of perstack-orch
  expression: >-
    !variables.pod.?hostNetwork.orValue(false) && !variables.pod.?hostPID.orValue(false)
    && !variables.pod.?hostIPC.orValue(false)
- message: a Pod of perstack-orch has one container
  expression: >-
    size(variables.containers) == 1 && !has(variables.pod.initContainers) && !has(variables.pod.ephemeralContainers)
- message: Pods of perstack-orch run without root, privileges and capabilities, on a file system that is read-only
  expression: >-
    variables.pod.?securityContext.runAsNonRoot.orValue(false)
    && variables.containers.all(c, !c.?securityContext.allowPrivilegeEscalation.orValue(true)
    && !c.?securityContext.privileged.orValue(false)
    && c.?securityContext.readOnlyRootFilesystem.orValue(false)
    && 'ALL' in c.?securityContext.capabilities.drop.orValue([])
    && size(c.?securityContext.capabilities.add.orValue([])) == 0)
- message: 'automountServiceAccountToken must be false: a Pod that needs a token mounts it explicitly'
  expression: '!variables.pod.?automountServiceAccountToken.orValue(true)'
- message: images of perstack-orch are pulled with image.pullSecrets and no other Secret
  expression: >-
    variables.pod.?imagePullSecrets.orValue([]).all(s,
    s.?name.orValue('') in {{ include "perstack.celList" .Values.image.pullSecrets }})
{{- end }}
