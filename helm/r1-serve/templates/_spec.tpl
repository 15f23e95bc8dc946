{{/* The spec as r1-serve reads it: the values', with what only the chart knows. */}}
{{- define "r1.spec" -}}
{{- $spec := deepCopy .Values.spec -}}
{{- $values := .Values -}}
{{- range $model := $spec.models -}}
{{- $name := default "DeepSeek-R1-0528" $model.name -}}
{{- with get $values.weights.models $name -}}
{{- $_ := set $model "path" (include "r1.modelPath" (dict "name" $name "path" .)) -}}
{{- end -}}
{{- /* Scaling must know how long a gang takes to start. */ -}}
{{- $_ := set $model "engine" (merge (deepCopy (default dict $model.engine)) (dict "storage_bytes_per_s" $values.weights.bytesPerS)) -}}
{{- if or $values.weights.cacheHostPath (hasPrefix "hf://" $model.path) -}}
{{- $_ := set $model "weights_cache" "/var/cache/r1-serve" -}}
{{- end -}}
{{- end -}}
{{- if $values.keys.secret -}}
{{- $_ := set $spec "api" (merge (dict "keys_path" "/etc/r1-serve/keys") (default dict $spec.api)) -}}
{{- end -}}
{{- $_ := set $spec.gateway "host" "0.0.0.0" -}}
{{- $_ := set $spec "log_dir" "/tmp/r1-serve" -}}
{{- $_ := unset $spec "local" -}}
{{ toYaml $spec }}
{{- end -}}

{{/* Where a model is inside a pod: a dict with name and path. */}}
{{- define "r1.modelPath" -}}
{{- if hasPrefix "hostPath://" .path -}}
{{ trimPrefix "hostPath://" .path }}
{{- else if hasPrefix "oci://" .path -}}
/mnt/images/{{ .name }}
{{- else -}}
{{ .path }}
{{- end -}}
{{- end -}}

{{/* The volumes and mounts of weights, as YAML with `volumes` and `mounts`. */}}
{{- define "r1.weights" -}}
{{- $volumes := list -}}
{{- $mounts := list -}}
{{- $claims := dict -}}
{{- range $model := .Values.spec.models -}}
{{- $name := default "DeepSeek-R1-0528" $model.name -}}
{{- $path := default $model.path (get $.Values.weights.models $name) -}}
{{- if hasPrefix "pvc://" $path -}}
{{- $_ := set $claims (first (splitList "/" (trimPrefix "pvc://" $path))) true -}}
{{- else if hasPrefix "hostPath://" $path -}}
{{- $id := printf "weights-%s" ($name | lower | replace "." "-" | trunc 50 | trimSuffix "-") -}}
{{- $folder := trimPrefix "hostPath://" $path -}}
{{- $volumes = append $volumes (dict "name" $id "hostPath" (dict "path" $folder "type" "Directory")) -}}
{{- $mounts = append $mounts (dict "name" $id "mountPath" $folder "readOnly" true) -}}
{{- else if hasPrefix "oci://" $path -}}
{{- $id := printf "weights-%s" ($name | lower | replace "." "-" | trunc 50 | trimSuffix "-") -}}
{{- $volumes = append $volumes (dict "name" $id "image" (dict "reference" (trimPrefix "oci://" $path) "pullPolicy" "IfNotPresent")) -}}
{{- $mounts = append $mounts (dict "name" $id "mountPath" (printf "/mnt/images/%s" $name) "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- range $claim := keys $claims | sortAlpha -}}
{{- $volumes = append $volumes (dict "name" (printf "claim-%s" $claim) "persistentVolumeClaim" (dict "claimName" $claim "readOnly" true)) -}}
{{- $mounts = append $mounts (dict "name" (printf "claim-%s" $claim) "mountPath" (printf "/mnt/weights/%s" $claim) "readOnly" true) -}}
{{- end -}}
{{- if .Values.weights.cacheHostPath -}}
{{- $volumes = append $volumes (dict "name" "weights-cache" "hostPath" (dict "path" .Values.weights.cacheHostPath "type" "DirectoryOrCreate")) -}}
{{- else -}}
{{- $volumes = append $volumes (dict "name" "weights-cache" "emptyDir" dict) -}}
{{- end -}}
{{- $mounts = append $mounts (dict "name" "weights-cache" "mountPath" "/var/cache/r1-serve") -}}
{{ toYaml (dict "volumes" $volumes "mounts" $mounts) }}
{{- end -}}

{{/* Seconds in which a host has read the weights of any pool, and everything else is ready. */}}
{{- define "r1.startSeconds" -}}
{{- $bytes := 0.0 -}}
{{- range $model := .Values.spec.models -}}
{{- range $pool := $model.pools -}}
{{- $bytes = maxf $bytes (float64 (default 0 $pool.node_weights_bytes)) -}}
{{- end -}}
{{- end -}}
{{- /* Twice what the storage promises, and ten minutes for images, graphs and what compiles. */ -}}
{{- addf 600 (mulf 2 (divf $bytes .Values.weights.bytesPerS)) | ceil | int64 -}}
{{- end -}}

{{/* Seconds that a pod may take to end: a thought that has begun, then what is moved. */}}
{{- define "r1.graceSeconds" -}}
{{- add (int64 .Values.spec.fleet.drain_s) 120 -}}
{{- end -}}

{{/* What Serve is told: its configuration, in which the spec is a text. */}}
{{- define "r1.serveConfig" -}}
{{- $spec := include "r1.spec" . -}}
{{- $application := dict "name" "r1-serve" "route_prefix" "/" "import_path" "orchestrator.runtime.application:build" "args" (dict "spec" $spec) -}}
{{- if include "r1.scaled" . -}}
{{- $_ := set $application "autoscaling_policy" (dict "policy_function" "orchestrator.runtime.scaling_policy:ScalingPolicy" "policy_kwargs" (dict "spec" $spec)) -}}
{{- end -}}
{{ toYaml (dict "proxy_location" "EveryNode" "http_options" (dict "host" "0.0.0.0" "port" (int .Values.spec.gateway.port)) "applications" (list $application)) }}
{{- end -}}

{{- define "r1.scaled" -}}
{{- range .Values.spec.models -}}{{- if .scaling -}}yes{{- end -}}{{- end -}}
{{- end -}}
