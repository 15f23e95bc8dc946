{{/* The telemetry process of a pod: its GPUs, gateways and engines on one port. A dict with root and gpu. It shares /tmp, where processes
announce their metrics, and sees the pod's GPUs as NVIDIA's runtime shows them; where it does not, they are not available. */}}
{{- define "r1.telemetry" -}}
{{- $values := .root.Values -}}
name: telemetry
image: {{ include "r1.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
command:
  - r1-serve
  - telemetry
  - --targets=/tmp/r1-serve/targets
  - --port={{ int (dig "telemetry" "port" 9402 $values.spec) }}
  - --node=$(NODE_NAME)
  - --gpus={{ ternary "nvml" "none" (not (empty .gpu)) }}
  {{- range dig "telemetry" "certificates" list $values.spec }}
  - --certificate={{ . }}
  {{- end }}
env:
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  {{- if .gpu }}
  - {name: NVIDIA_VISIBLE_DEVICES, value: all}
  {{- end }}
ports:
  - {name: telemetry, containerPort: {{ int (dig "telemetry" "port" 9402 $values.spec) }}}
resources:
  requests: {cpu: 100m, memory: 256Mi}
  limits: {cpu: 100m, memory: 256Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end -}}
