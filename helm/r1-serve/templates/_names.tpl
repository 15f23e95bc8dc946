{{- define "r1.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $own := default .Chart.Name .Values.nameOverride -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $own) (contains $own .Release.Name) -}}
{{- end -}}
{{- if gt (len $name) 47 -}}
{{- fail (printf "the name %s has %d characters, KubeRay allows a RayService 47: set fullnameOverride to a shorter one" $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %s is no DNS label: set fullnameOverride to one of lower-case letters, digits and dashes that begins with a letter" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "r1.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "r1.labels" -}}
{{ include "r1.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: r1-serve
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: a dict with root, suffix, and perhaps labels and annotations. */}}
{{- define "r1.metadata" -}}
name: {{ include "r1.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "r1.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (deepCopy (default dict .annotations)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "r1.image" -}}
{{- $image := .Values.image -}}
{{- $from := ternary (printf "%s/%s" .Values.global.imageRegistry $image.repository) $image.repository (ne .Values.global.imageRegistry "") -}}
{{- if $image.digest -}}
{{ $from }}@{{ $image.digest }}
{{- else -}}
{{ $from }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "r1.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "r1.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* Of every pod: not root, and as whom. */}}
{{- define "r1.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- with .Values.security }}
{{- if not (kindIs "invalid" .runAsUser) }}
runAsUser: {{ int .runAsUser }}
{{- end }}
{{- if not (kindIs "invalid" .fsGroup) }}
fsGroup: {{ int .fsGroup }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A Kubernetes quantity in bytes. */}}
{{- define "r1.bytes" -}}
{{- $factors := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number .)) | int64 -}}
{{- end -}}
