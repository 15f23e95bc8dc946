{{/* The environment of every Ray process: what Serve reads when it is imported. */}}
{{- define "r1.env" -}}
{{- $stream := int (int64 .Values.spec.gateway.stream_s_max) -}}
{{- $env := dict
  "RAY_SERVE_ENABLE_HA_PROXY" "1"
  "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD" "0"
  "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S" (toString $stream)
  "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S" (toString $stream)
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER" "1s"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER" "1s"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL" "10"
  "RAY_SERVE_STOP_FAILED_ROLLING_UPDATES" "1"
  "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT" "1"
  "RAY_health_check_initial_delay_ms" "5000"
  "RAY_health_check_period_ms" "1000"
  "RAY_health_check_timeout_ms" (toString (int64 (divf (mulf 1000 .Values.spec.fleet.cut_off_after_s) 5)))
  "RAY_health_check_failure_threshold" "5"
  "RAY_USAGE_STATS_ENABLED" "0"
  "HF_HUB_DISABLE_TELEMETRY" "1"
-}}
{{- if not .Values.ray.auth -}}
{{- $_ := set $env "RAY_AUTH_MODE" "disabled" -}}
{{- end -}}
{{ toYaml $env }}
{{- end -}}

{{/* Bytes of Ray's object store, where nothing large is put: by default it would take a third of the memory, and more than /dev/shm,
which is for collectives. */}}
{{- define "r1.objectStore" -}}
134217728
{{- end -}}

{{- define "r1.envList" -}}
{{- $env := . -}}
{{- range $name := keys $env | sortAlpha }}
- {name: {{ $name }}, value: {{ get $env $name | toString | quote }}}
{{- end -}}
{{- end -}}

{{/* One pod template: a dict with root, kind (head, gateways, gpuHosts), group and its name. */}}
{{- define "r1.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $pods := get $values .kind -}}
{{- $group := default dict .group -}}
{{- $gpu := and (eq .kind "gpuHosts") $group.gpu -}}
{{- $rdma := and $gpu $group.rdma -}}
{{- $env := merge (deepCopy (default dict $pods.extraEnv)) (fromYaml (include "r1.env" $root)) -}}
{{- if eq .kind "gpuHosts" -}}
{{- range $prefix, $map := dict "NCCL_" $values.network.nccl "UCX_" $values.network.ucx "NVSHMEM_" $values.network.nvshmem -}}
{{- range $key, $value := $map -}}{{- $_ := set $env (printf "%s%s" $prefix $key) $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $volumes := list (dict "name" "tmp" "emptyDir" dict) (dict "name" "spec" "configMap" (dict "name" (printf "%s-spec" (include "r1.fullname" $root)))) -}}
{{- $mounts := list (dict "name" "tmp" "mountPath" "/tmp") (dict "name" "spec" "mountPath" "/etc/r1-serve/spec" "readOnly" true) -}}
{{- if $values.keys.secret -}}
{{- $volumes = append $volumes (dict "name" "keys" "secret" (dict "secretName" $values.keys.secret)) -}}
{{- $mounts = append $mounts (dict "name" "keys" "mountPath" "/etc/r1-serve/keys" "readOnly" true) -}}
{{- end -}}
{{- if $pods.shm -}}
{{- $volumes = append $volumes (dict "name" "shm" "emptyDir" (dict "medium" "Memory" "sizeLimit" $pods.shm)) -}}
{{- $mounts = append $mounts (dict "name" "shm" "mountPath" "/dev/shm") -}}
{{- end -}}
{{- /* Gateways read the tokenizer; the head imports the application and reads nothing. */ -}}
{{- if ne .kind "head" -}}
{{- $weights := fromYaml (include "r1.weights" $root) -}}
{{- $volumes = concat $volumes $weights.volumes -}}
{{- $mounts = concat $mounts $weights.mounts -}}
{{- end -}}
{{- if eq .kind "gpuHosts" -}}
{{- $volumes = append $volumes (dict "name" "compiled" "emptyDir" dict) -}}
{{- $mounts = append $mounts (dict "name" "compiled" "mountPath" "/var/cache/compiled") -}}
{{- range $name := list "VLLM_CACHE_ROOT" "TRITON_CACHE_DIR" "FLASHINFER_WORKSPACE_BASE" "DG_JIT_CACHE_DIR" -}}
{{- $_ := set $env $name (printf "/var/cache/compiled/%s" ($name | lower)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $volume := $pods.extraVolumes -}}
{{- $volumes = append $volumes (merge (dict "name" $name) $volume) -}}
{{- end -}}
{{- range $name, $path := $pods.extraMounts -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" $path) -}}
{{- end -}}
{{- $resources := dict "cpu" $pods.cpu "memory" $pods.memory -}}
{{- with $pods.ephemeralStorage -}}{{- $_ := set $resources "ephemeral-storage" . -}}{{- end -}}
{{- if and $gpu (not $values.dra.enabled) -}}
{{- $_ := set $resources (ternary "amd.com/gpu" "nvidia.com/gpu" (hasPrefix "MI" $group.gpu)) (int $group.gpusPerHost) -}}
{{- end -}}
{{- if $rdma -}}{{- $_ := set $resources $values.network.rdma.resource (int $values.network.rdma.count) -}}{{- end -}}
{{- $security := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- if $rdma -}}{{- $_ := set $security.capabilities "add" (list "IPC_LOCK") -}}{{- end -}}
{{- $container := dict "name" "ray" "image" (include "r1.image" $root) "imagePullPolicy" $values.image.pullPolicy
  "env" (fromYamlArray (include "r1.envList" $env))
  "resources" (dict "requests" $resources "limits" (deepCopy $resources))
  "securityContext" $security "volumeMounts" $mounts -}}
{{- $secrets := list -}}
{{- with $values.weights.bucketSecret -}}{{- $secrets = append $secrets (dict "secretRef" (dict "name" .)) -}}{{- end -}}
{{- if and $secrets (ne .kind "head") -}}{{- $_ := set $container "envFrom" $secrets -}}{{- end -}}
{{- if and $values.weights.hubTokenSecret (ne .kind "head") -}}
{{- $_ := set $container "env" (append $container.env (dict "name" "HF_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" $values.weights.hubTokenSecret "key" "token")))) -}}
{{- end -}}
{{- if ne .kind "head" -}}
{{- /* Ray's own answer, over HTTP: an image needs no shell and no wget for it. */ -}}
{{- $raylet := dict "httpGet" (dict "path" "/api/local_raylet_healthz" "port" 52365) -}}
{{- $_ := set $container "startupProbe" (merge (dict "periodSeconds" 5 "failureThreshold" (int (ceil (divf (include "r1.startSeconds" $root | float64) 5)))) (deepCopy $raylet)) -}}
{{- $_ := set $container "livenessProbe" (merge (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 12) (deepCopy $raylet)) -}}
{{- $ready := $raylet -}}
{{- if eq .kind "gateways" -}}
{{- $_ := set $container "ports" (list (dict "name" "serve" "containerPort" (int $values.spec.gateway.port))) -}}
{{- $ready = dict "httpGet" (dict "path" "/-/healthz" "port" (int $values.spec.gateway.port)) -}}
{{- end -}}
{{- /* Often: the operator gives a new cluster the traffic when Serve says that it runs, whatever kubelet knows by then. */ -}}
{{- $_ := set $container "readinessProbe" (merge (dict "periodSeconds" 1 "timeoutSeconds" 5 "failureThreshold" 15) (deepCopy $ready)) -}}
{{- $_ := set $container "lifecycle" (dict "preStop" (dict "sleep" (dict "seconds" 15))) -}}
{{- end -}}
{{- $affinity := deepCopy (default dict $pods.affinity) -}}
{{- if $gpu -}}
{{- with get $values.scheduling.products $group.gpu -}}
{{- $term := dict "matchExpressions" (list (dict "key" $values.scheduling.productLabel "operator" "In" "values" .)) -}}
{{- $affinity = mergeOverwrite (dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term)))) $affinity -}}
{{- end -}}
{{- end -}}
{{- $spec := dict
  "serviceAccountName" (include "r1.serviceAccount" $root)
  "automountServiceAccountToken" false
  "enableServiceLinks" false
  "terminationGracePeriodSeconds" (include "r1.graceSeconds" $root | int)
  "containers" (list $container) "volumes" $volumes -}}
{{- if and (ne .kind "head") $values.monitoring.telemetry -}}
{{- $_ := set $spec "containers" (append $spec.containers (fromYaml (include "r1.telemetry" (dict "root" $root "gpu" $gpu)))) -}}
{{- end -}}
{{- $_ := set $spec "securityContext" (fromYaml (include "r1.podSecurity" $root)) -}}
{{- if ne .kind "head" -}}{{- $_ := set $spec "restartPolicy" "Never" -}}{{- end -}}
{{- with $values.image.pullSecrets -}}
{{- $names := list -}}{{- range . -}}{{- $names = append $names (dict "name" .) -}}{{- end -}}
{{- $_ := set $spec "imagePullSecrets" $names -}}
{{- end -}}
{{- with $pods.nodeSelector -}}{{- $_ := set $spec "nodeSelector" . -}}{{- end -}}
{{- with $pods.tolerations -}}{{- $_ := set $spec "tolerations" . -}}{{- end -}}
{{- with $affinity -}}{{- $_ := set $spec "affinity" . -}}{{- end -}}
{{- with $pods.runtimeClassName -}}{{- $_ := set $spec "runtimeClassName" . -}}{{- end -}}
{{- with $pods.priorityClassName -}}{{- $_ := set $spec "priorityClassName" . -}}{{- end -}}
{{- if and (eq .kind "gpuHosts") $values.network.hostNetwork -}}
{{- $_ := set $spec "hostNetwork" true -}}
{{- $_ := set $spec "dnsPolicy" "ClusterFirstWithHostNet" -}}
{{- end -}}
{{- if and $gpu $values.dra.enabled -}}
{{- $claims := list (dict "name" "gpus" "resourceClaimTemplateName" (printf "%s-%s-gpus" (include "r1.fullname" $root) .name)) -}}
{{- $_ := set $container.resources "claims" (list (dict "name" "gpus")) -}}
{{- if and $values.dra.computeDomain $group.oneNvlinkDomain -}}
{{- $claims = append $claims (dict "name" "domain" "resourceClaimTemplateName" (printf "%s-%s-domain" (include "r1.fullname" $root) .name)) -}}
{{- $_ := set $container.resources "claims" (list (dict "name" "gpus") (dict "name" "domain")) -}}
{{- end -}}
{{- $_ := set $spec "resourceClaims" $claims -}}
{{- end -}}
{{- if eq $values.scheduling.gang "kai" -}}{{- $_ := set $spec "schedulerName" "kai-scheduler" -}}{{- end -}}
{{- if eq $values.scheduling.gang "volcano" -}}{{- $_ := set $spec "schedulerName" "volcano" -}}{{- end -}}
{{- if eq $values.scheduling.gang "yunikorn" -}}{{- $_ := set $spec "schedulerName" "yunikorn" -}}{{- end -}}
{{- if and (eq .kind "gpuHosts") $values.scheduling.spreadLabel -}}
{{- $_ := set $spec "topologySpreadConstraints" (list (dict "maxSkew" 1 "topologyKey" $values.scheduling.spreadLabel "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" (dict "matchLabels" (dict "r1-serve/group" .name)))) -}}
{{- end -}}
{{- $annotations := deepCopy (default dict $pods.annotations) -}}
{{- if and $rdma $values.network.rdma.networks -}}{{- $_ := set $annotations "k8s.v1.cni.cncf.io/networks" $values.network.rdma.networks -}}{{- end -}}
{{- if and (eq $values.scheduling.gang "kueue") $gpu $values.scheduling.leafLabel (gt (int $group.numOfHosts) 1) -}}
{{- $_ := set $annotations "kueue.x-k8s.io/podset-required-topology" $values.scheduling.leafLabel -}}
{{- end -}}
{{- $labels := merge (dict "r1-serve/role" .kind) (fromYaml (include "r1.labels" $root)) -}}
{{- with .name -}}{{- $_ := set $labels "r1-serve/group" . -}}{{- end -}}
{{- $metadata := dict "labels" $labels -}}
{{- with $annotations -}}{{- $_ := set $metadata "annotations" . -}}{{- end -}}
{{ toYaml (dict "metadata" $metadata "spec" (mergeOverwrite $spec (deepCopy (default dict $pods.patch)))) }}
{{- end -}}
