{{/* A run of `runs`: the files of its coordinator in /job, and its name. (dict "root" $ "name" NAME "run" {…}) */}}

{{- define "perstack.runFiles" -}}
{{- $values := .root.Values -}}
{{- $request := dict "expertKey" .run.expertKey -}}
{{- range $name := list "query" "user" }}{{ with index $.run $name }}{{ $_ := set $request $name . }}{{ end }}{{ end -}}
{{- with .run.env }}{{ $_ := set $request "env" (keys . | sortAlpha) }}{{ end -}}
{{- with $values.sandbox.queueName }}{{ $_ := set $request "prewarm" "off" }}{{ end -}}
perstack.toml: {{ $values.config | required "config is empty: runs need a perstack.toml (--set-file config=perstack.toml)" | quote }}
{{- with $values.lock }}
perstack.lock: {{ . | quote }}
{{- end }}
{{- with $values.replies }}
replies.json: {{ . | quote }}
{{- end }}
request.json: {{ mustMerge $request (.run.request | default dict) | mustToJson | quote }}
env.json: {{ .run.env | default dict | mustToJson | quote }}
{{- end }}

{{/* A Job cannot be changed, so a changed run is another Job, and Helm deletes the previous one. */}}
{{- define "perstack.runName" -}}
{{- $name := printf "%s-%s" (include "perstack.fullname" .root) .name -}}
{{- if .run.schedule -}}
{{ $name }}
{{- else -}}
{{- $pod := include "perstack.coordinatorPod" (dict "root" .root "claim" "" "secret" "" "own" true) -}}
{{ $name }}-{{ printf "%s\n%s" (include "perstack.runFiles" .) $pod | sha256sum | trunc 8 }}
{{- end -}}
{{- end }}

{{- define "perstack.runPod" -}}
{{- $claim := include "perstack.claimName" .run.user -}}
{{- $labels := dict "perstack.ai/claim" (include "perstack.claimLabel" .run.user) -}}
{{ include "perstack.coordinatorPod" (dict "root" .root "claim" $claim "secret" (include "perstack.runName" .) "labels" $labels "own" true) }}
{{- end }}

{{/* The name of a user's claim, as the command line makes it, or `default`: a readable part, and 128 bits of a digest of the whole id. */}}
{{- define "perstack.claimName" -}}
{{- if . -}}
{{- $readable := regexReplaceAll "[^a-z0-9]" (lower .) "-" | trunc 24 | trimAll "-" | default "user" -}}
perstack-{{ $readable }}-{{ sha256sum . | trunc 32 }}
{{- else -}}
default
{{- end -}}
{{- end }}

{{/* The label of Pods that mount that claim: its name, or a digest if the name is too long. */}}
{{- define "perstack.claimLabel" -}}
{{- $name := include "perstack.claimName" . -}}
{{- if le (len $name) 45 -}}
{{ $name }}
{{- else -}}
{{ trunc 28 $name | trimAll "-" }}-{{ sha256sum $name | trunc 16 }}
{{- end -}}
{{- end }}
