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
{{- $id := printf "weights-%s" ($name | lower | replace "." "-" | trunc 50 | trimSuffix "-") -}}
{{- if hasPrefix "pvc://" $path -}}
{{- $_ := set $claims (first (splitList "/" (trimPrefix "pvc://" $path))) true -}}
{{- else if hasPrefix "hostPath://" $path -}}
{{- $folder := trimPrefix "hostPath://" $path -}}
{{- $volumes = append $volumes (dict "name" $id "hostPath" (dict "path" $folder "type" "Directory")) -}}
{{- $mounts = append $mounts (dict "name" $id "mountPath" $folder "readOnly" true) -}}
{{- else if hasPrefix "oci://" $path -}}
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

{{/* What the replicas of one pool read: a dict with spec, model and role. What is not in it may change without loading weights
again; orchestrator/spec/parts.py is the same in Python, and a test compares the two. */}}
{{- define "r1.poolPart" -}}
{{- $role := .role -}}
{{- $pools := list -}}
{{- range .model.pools -}}
{{- if eq .role $role -}}
{{- $pools = append $pools (omit . "replicas" "costs" "node_weights_bytes" "node_group") -}}
{{- else -}}
{{- $pools = append $pools (pick . "role" "args") -}}
{{- end -}}
{{- end -}}
{{- $model := set (omit .model "aliases" "system_prompt" "scaling") "pools" $pools -}}
{{- $part := pick .spec "channel" "fleet" "log_dir" -}}
{{- $_ := set $part "models" (list $model) -}}
{{- with pick (default dict .spec.handoff) "kv" "fabric" -}}{{- $_ := set $part "handoff" . -}}{{- end -}}
{{ toYaml $part }}
{{- end -}}

{{/* What gateways read: all but the numbers of replicas and what concerns gangs alone. */}}
{{- define "r1.gatewayPart" -}}
{{- $spec := omit . "fleet" -}}
{{- $models := list -}}
{{- range $model := $spec.models -}}
{{- $pools := list -}}
{{- range $model.pools -}}{{- $pools = append $pools (omit . "replicas") -}}{{- end -}}
{{- $models = append $models (set (deepCopy $model) "pools" $pools) -}}
{{- end -}}
{{ toYaml (set $spec "models" $models) }}
{{- end -}}

{{/* How many replicas a deployment has: a dict with count, and least and most if it is scaled. */}}
{{- define "r1.replicas" -}}
{{- if hasKey . "most" -}}
{{- $first := min (max (int .count) (int .least)) (int .most) -}}
{{ toYaml (dict "autoscaling_config" (dict "min_replicas" (int .least) "max_replicas" (int .most) "initial_replicas" $first
  "metrics_interval_s" 5 "look_back_period_s" 10 "upscale_delay_s" 0 "downscale_delay_s" 0 "downscale_to_zero_delay_s" 0)) }}
{{- else -}}
{{ toYaml (dict "num_replicas" (int .count)) }}
{{- end -}}
{{- end -}}

{{- define "r1.actor" -}}
{{ toYaml (dict "num_cpus" 0.1 "runtime_env" (dict "env_vars" (dict "R1_SERVE_SPEC" .))) }}
{{- end -}}

{{/* What Serve is told: its configuration, in which each deployment has its part of the spec as a text. */}}
{{- define "r1.serveConfig" -}}
{{- $spec := fromYaml (include "r1.spec" .) -}}
{{- $period := default 2 $spec.fleet.health_period_s -}}
{{- $names := dict -}}
{{- $count := int $spec.gateway.replicas -}}
{{- $replicas := dict "count" $count -}}
{{- if include "r1.scaled" . -}}{{- $replicas = dict "count" $count "least" $count "most" $count -}}{{- end -}}
{{- $gateway := merge (fromYaml (include "r1.replicas" $replicas)) (dict
  "name" "gateway" "max_ongoing_requests" 1000000
  "ray_actor_options" (merge (dict "label_selector" (dict "r1-serve/gateways" "true")) (fromYaml (include "r1.actor" (include "r1.gatewayPart" $spec))))
  "health_check_period_s" $period "health_check_timeout_s" 30
  "graceful_shutdown_timeout_s" $spec.gateway.stream_s_max "max_surge_percent" 100) -}}
{{- $deployments := list $gateway -}}
{{- range $model := $spec.models -}}
{{- range $pool := $model.pools -}}
{{- $of := default "DeepSeek-R1-0528" $model.name -}}
{{- $name := printf "%s-%s" $of $pool.role -}}
{{- $_ := set $names $name (list $of $pool.role) -}}
{{- $gang := default dict $pool.gang -}}
{{- $nodes := int (default 1 $gang.nodes) -}}
{{- $gpus := div (mul (int (default 1 $gang.tensor_parallel)) (int (default 1 $gang.pipeline_parallel)) (int (default 1 $gang.data_parallel))) $nodes -}}
{{- $bundles := list -}}
{{- range until $nodes -}}{{- $bundles = append $bundles (dict "CPU" 1 "GPU" (int $gpus)) -}}{{- end -}}
{{- $some := dict "count" (int (default 1 $pool.replicas)) -}}
{{- if $model.scaling -}}
{{- range $model.scaling.pools -}}
{{- if eq .role $pool.role -}}{{- $some = dict "count" (int (default 1 $pool.replicas)) "least" (int (default 1 .gangs_min)) "most" (int .gangs_max) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $deployments = append $deployments (merge (fromYaml (include "r1.replicas" $some)) (dict
  "name" $name
  "ray_actor_options" (fromYaml (include "r1.actor" (include "r1.poolPart" (dict "spec" $spec "model" $model "role" $pool.role))))
  "placement_group_bundles" $bundles
  "placement_group_strategy" (ternary "STRICT_SPREAD" "STRICT_PACK" (gt $nodes 1))
  "placement_group_bundle_label_selector" (list (dict (printf "r1-serve/%s" $pool.node_group) "true"))
  "health_check_period_s" $period "health_check_timeout_s" 30
  "graceful_shutdown_timeout_s" (addf (float64 $spec.fleet.drain_s) 60)
  "rolling_update_percentage" 0.001 "max_surge_percent" 0)) -}}
{{- end -}}
{{- end -}}
{{- $application := dict "name" "r1-serve" "route_prefix" "/" "import_path" "orchestrator.runtime.application:build"
  "args" (dict "pools" $names "start_attempts" (int (default 3 $spec.fleet.start_attempts))) "deployments" $deployments -}}
{{- if include "r1.scaled" . -}}
{{- $_ := set $application "autoscaling_policy" (dict "policy_function" "orchestrator.runtime.scaling_policy:ScalingPolicy") -}}
{{- end -}}
{{ toYaml (dict "proxy_location" "EveryNode" "http_options" (dict "host" "0.0.0.0" "port" (int .Values.spec.gateway.port)) "applications" (list $application)) }}
{{- end -}}

{{- define "r1.scaled" -}}
{{- range .Values.spec.models -}}{{- if .scaling -}}yes{{- end -}}{{- end -}}
{{- end -}}
