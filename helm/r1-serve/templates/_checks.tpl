{{/* Refuses what Kubernetes or KubeRay would take and never run. */}}
{{- define "r1.checks" -}}
{{- $values := .Values -}}
{{- if not (.Capabilities.APIVersions.Has "ray.io/v1/RayService") -}}
{{- fail "this cluster has no RayService (ray.io/v1): install the KubeRay operator 1.7 first, with\n  helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm --version 1.7.0\nor, to render without a cluster, add --api-versions ray.io/v1/RayService" -}}
{{- end -}}
{{- if not .Values.spec.models -}}
{{- fail "spec.models is empty: give a plan's values with -f, from `r1-serve plan --format values` or from the chart's profiles/" -}}
{{- end -}}
{{- range $at, $model := .Values.spec.models -}}
{{- range $pool := $model.pools -}}
{{- $where := printf "spec.models[%d], pool %s" $at $pool.role -}}
{{- $gang := default dict $pool.gang -}}
{{- $tp := int (default 1 $gang.tensor_parallel) -}}
{{- $pp := int (default 1 $gang.pipeline_parallel) -}}
{{- $dp := int (default 1 $gang.data_parallel) -}}
{{- $nodes := int (default 1 $gang.nodes) -}}
{{- $gpus := mul $tp $pp $dp -}}
{{- if not $pool.node_group -}}
{{- fail (printf "%s names no node_group: name one of workerGroups: %s" $where (keys $values.workerGroups | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $group := get $values.workerGroups $pool.node_group -}}
{{- if not $group -}}
{{- fail (printf "%s: node_group %s is none of workerGroups: %s" $where $pool.node_group (keys $values.workerGroups | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $hosts := int $group.numOfHosts -}}
{{- $per := int $group.gpusPerHost -}}
{{- if ne $hosts $nodes -}}
{{- fail (printf "%s spans %d nodes, workerGroups.%s has numOfHosts %d: make them equal" $where $nodes $pool.node_group $hosts) -}}
{{- end -}}
{{- if ne (int $gpus) (int (mul $hosts $per)) -}}
{{- fail (printf "%s: tensor %d x pipeline %d x data %d = %d GPUs, workerGroups.%s has %d hosts x %d = %d: make them equal" $where $tp $pp $dp $gpus $pool.node_group $hosts $per (mul $hosts $per)) -}}
{{- end -}}
{{- if gt (int (default 1 $pool.replicas)) (int $group.replicas) -}}
{{- fail (printf "%s has %d replicas, workerGroups.%s only %d" $where (int (default 1 $pool.replicas)) $pool.node_group (int $group.replicas)) -}}
{{- end -}}
{{- end -}}
{{- $name := default "DeepSeek-R1-0528" $model.name -}}
{{- $path := default $model.path (get $values.weights.models $name) -}}
{{- if hasPrefix "pvc://" $path -}}
{{- $claim := first (splitList "/" (trimPrefix "pvc://" $path)) -}}
{{- $known := get $values.weights.claims $claim -}}
{{- if $known -}}
{{- $most := 0 -}}
{{- range $values.workerGroups -}}{{- $most = add $most (mul .replicas .numOfHosts) -}}{{- end -}}
{{- if and (eq (default "ReadWriteMany" $known.accessMode) "ReadWriteOnce") (gt (int $most) 1) -}}
{{- fail (printf "weights.claims.%s is ReadWriteOnce, and %d hosts mount it: use ReadWriteMany or ReadOnlyMany" $claim $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := list "head" "gateways" "gpuHosts" -}}
{{- $pods := get $values $name -}}
{{- if $pods.shm -}}
{{- if gt (int64 (include "r1.bytes" $pods.shm)) (int64 (divf (float64 (include "r1.bytes" $pods.memory)) 2)) -}}
{{- fail (printf "%s.shm %s is more than half of %s.memory %s, which it counts against: lower shm or raise memory" $name $pods.shm $name $pods.memory) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $mount := $values.gpuHosts.extraMounts -}}
{{- if not (hasKey (default dict $values.gpuHosts.extraVolumes) $name) -}}
{{- fail (printf "gpuHosts.extraMounts.%s has no volume: add gpuHosts.extraVolumes.%s" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.dra.computeDomain (not $values.dra.enabled) -}}
{{- fail "dra.computeDomain needs dra.enabled" -}}
{{- end -}}
{{- if and (ne $values.scheduling.gang "none") (not $values.scheduling.queue) (ne $values.scheduling.gang "volcano") -}}
{{- fail (printf "scheduling.gang %s needs scheduling.queue" $values.scheduling.gang) -}}
{{- end -}}
{{- if and (eq $values.scheduling.gang "kueue") $values.scheduling.leafLabel -}}
{{- $sets := 2 -}}
{{- range $values.workerGroups -}}{{- $sets = add $sets (ternary (int .replicas) 1 (gt (int .numOfHosts) 1)) -}}{{- end -}}
{{- if gt (int $sets) 18 -}}
{{- fail (printf "scheduling.gang kueue: head, gateways and each gang of several hosts are %d pod sets, Kueue takes 18: install %d releases with fewer workerGroups.*.replicas" (int $sets) (int (ceil (divf (sub $sets 2) 16.0)))) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.ray.upgrade "NewClusterWithIncrementalUpgrade") (not $values.ray.gatewayClassName) -}}
{{- fail "ray.upgrade NewClusterWithIncrementalUpgrade needs ray.gatewayClassName, the Gateway class that shifts the traffic" -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateway that it hangs on" -}}
{{- end -}}
{{- if and $values.monitoring.podMonitor (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "monitoring.podMonitor: this cluster has no PodMonitor: install the Prometheus Operator, or set monitoring.podMonitor to false" -}}
{{- end -}}
{{- if and $values.monitoring.rules.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule")) -}}
{{- fail "monitoring.rules: this cluster has no PrometheusRule: install the Prometheus Operator, or set monitoring.rules.enabled to false" -}}
{{- end -}}
{{- include "r1.secretCheck" (dict "root" . "key" "keys.secret" "name" .Values.keys.secret "make" "--from-file=keys=FILE, with lines of `r1-serve key`") -}}
{{- include "r1.secretCheck" (dict "root" . "key" "weights.hubTokenSecret" "name" .Values.weights.hubTokenSecret "make" "--from-literal=token=hf_...") -}}
{{- include "r1.secretCheck" (dict "root" . "key" "weights.bucketSecret" "name" .Values.weights.bucketSecret "make" "--from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=...") -}}
{{- include "r1.secretCheck" (dict "root" . "key" "ray.authSecret" "name" .Values.ray.authSecret "make" "--from-literal=auth_token=...") -}}
{{- include "r1.secretCheck" (dict "root" . "key" "ray.redis.passwordSecret" "name" .Values.ray.redis.passwordSecret "make" "--from-literal=password=...") -}}
{{- end -}}

{{/* Only a real cluster answers a lookup; its namespace tells whether there is one. */}}
{{- define "r1.secretCheck" -}}
{{- if .name -}}
{{- $namespace := .root.Release.Namespace -}}
{{- if and (lookup "v1" "Namespace" "" $namespace) (not (lookup "v1" "Secret" $namespace .name)) -}}
{{- fail (printf "%s: there is no Secret %s in namespace %s: make it with\n  kubectl create secret generic %s -n %s %s" .key .name $namespace .name $namespace .make) -}}
{{- end -}}
{{- end -}}
{{- end -}}
