{{- /* The spec of a RayCluster, for the one that stays and for those of jobs.
       Takes {root, owner: label of the cluster's pods, groups: names; all when empty}. */}}

{{- define "orchestrator.rayClusterSpec" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
rayVersion: {{ $values.ray.version | quote }}
authOptions:
  mode: token
  {{- with $values.ray.authSecretName }}
  secretName: {{ . }}
  {{- end }}
enableInTreeAutoscaling: {{ $values.ray.autoscaling.enabled }}
{{- if $values.ray.autoscaling.enabled }}
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ int $values.ray.autoscaling.idleSeconds }}
  upscalingMode: Default
  {{- include "orchestrator.pull" $root | nindent 2 }}
  securityContext: {{- include "orchestrator.containerSecurity" $root | nindent 4 }}
  resources:
    requests: {cpu: 500m, memory: 512Mi}
    limits: {cpu: 500m, memory: 512Mi}
  volumeMounts: {{- include "orchestrator.scratchMounts" $root | nindent 4 }}
{{- end }}
{{- with $values.ray.gcs }}
{{- if .redisAddress }}
gcsFaultToleranceOptions:
  redisAddress: {{ .redisAddress | quote }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: redis-password}}
{{- end }}
{{- end }}
headGroupSpec:
  serviceType: ClusterIP
  rayStartParams:
    num-cpus: "0"  # the head trains nothing
    num-gpus: "0"
    dashboard-host: 0.0.0.0  # the pod's; who reaches it is the NetworkPolicy's to say
    metrics-export-port: "8080"
    object-store-memory: {{ mul 536870912 (int $values.ray.head.sharedMemoryGiB) | toString | quote }}
  template:
    metadata:
      labels: {{- include "orchestrator.rayLabels" (dict "root" $root "owner" .owner "component" "ray-head") | nindent 8 }}
      annotations:
        cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
        karpenter.sh/do-not-disrupt: "true"
        {{- if $values.ray.autoscaling.enabled }}
        checkov.io/skip1: CKV_K8S_38=the autoscaler asks the API server for pods
        {{- end }}
    spec:
      serviceAccountName: {{ include "orchestrator.name" $root }}-ray-head
      # Ray's autoscaler, beside the head, asks the API server for pods. Nothing else does.
      automountServiceAccountToken: {{ $values.ray.autoscaling.enabled }}
      {{- $head := merge (dict "tolerations" (concat $values.ray.head.tolerations (include "orchestrator.lostNode" . | fromYamlArray))) $values.ray.head }}
      {{- include "orchestrator.rayPod" (dict "root" $root "pod" $head "component" "ray-head") | nindent 6 }}
      affinity: {{- include "orchestrator.notOnSpot" $root | nindent 8 }}
workerGroupSpecs:
{{- range $group := $values.workers }}
  {{- if or (not $.groups) (has $group.name $.groups) }}
  - groupName: {{ $group.name }}
    minReplicas: {{ int $group.min }}
    maxReplicas: {{ int $group.max }}
    replicas: {{ if or $values.ray.autoscaling.enabled $group.fallback }}{{ int $group.min }}{{ else }}{{ int $group.max }}{{ end }}
    {{- if and $group.priority $values.ray.autoscaling.enabled }}
    priority: {{ int $group.priority }}
    {{- end }}
    rayStartParams:
      metrics-export-port: "8080"
      num-cpus: {{ $group.cpu | toString | quote }}
      num-gpus: {{ $group.gpus | toString | quote }}
      object-store-memory: {{ mul 536870912 (int $group.sharedMemoryGiB) | toString | quote }}
    labels:
      ray.io/market-type: {{ ternary "spot" "on-demand" (default false $group.spot) }}
    template:
      metadata:
        labels: {{- include "orchestrator.rayLabels" (dict "root" $root "owner" $.owner "component" "ray-worker" "group" $group.name) | nindent 10 }}
      spec:
        serviceAccountName: {{ include "orchestrator.name" $root }}-ray-worker
        automountServiceAccountToken: false
        {{- include "orchestrator.rayPod" (dict "root" $root "pod" $group "component" "ray-worker") | nindent 8 }}
        {{- if not $group.spot }}
        affinity: {{- include "orchestrator.notOnSpot" $root | nindent 10 }}
        {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* A head whose node is lost is replaced after 30 s instead of Kubernetes' 300, which is as long as
       KubeRay waits for it: then the RayJob has failed for good, whatever its backoffLimit. */}}
{{- define "orchestrator.lostNode" -}}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- end }}

{{- /* Takes {root, owner, component, group}. */}}
{{- define "orchestrator.rayLabels" -}}
{{ include "orchestrator.labels" .root }}
app.kubernetes.io/component: {{ .component }}
orchestrator/owner: {{ .owner }}
{{- with .group }}
orchestrator/group: {{ . }}
{{- end }}
{{- end }}

{{- /* Takes {root, pod: a group or the head, component}. */}}
{{- define "orchestrator.rayPod" -}}
{{- $values := .root.Values -}}
{{- $isHead := eq .component "ray-head" -}}
# Longer than Ray drains, which is longer than a checkpoint takes: values.yaml, shutdown.
terminationGracePeriodSeconds: {{ include "orchestrator.graceSeconds" .root }}
securityContext: {{- include "orchestrator.podSecurity" .root | nindent 2 }}
enableServiceLinks: false
{{- include "orchestrator.priority" .root }}
{{- include "orchestrator.pullSecrets" .root }}
{{- include "orchestrator.placement" .pod }}
containers:
  - name: {{ .component }}
    {{- include "orchestrator.pull" .root | nindent 4 }}
    securityContext: {{- include "orchestrator.containerSecurity" .root | nindent 6 }}
    resources: {{- include "orchestrator.resources" .pod | indent 6 }}
    ports:
      {{- if $isHead }}
      - {name: gcs-server, containerPort: 6379, protocol: TCP}
      - {name: dashboard, containerPort: 8265, protocol: TCP}
      {{- end }}
      - {name: metrics, containerPort: 8080, protocol: TCP}
    # Both paths answer without the token.
    {{- range $probe, $failures := dict "readinessProbe" 10 "livenessProbe" 120 }}
    {{ $probe }}:
      httpGet: {path: {{ if $isHead }}/api/gcs_healthz, port: 8265{{ else }}/api/local_raylet_healthz, port: 52365{{ end }}}
      initialDelaySeconds: 10
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: {{ $failures }}
    {{- end }}
    env: {{- include "orchestrator.rayEnv" .root | nindent 6 }}
    volumeMounts:
      {{- include "orchestrator.scratchMounts" .root | nindent 6 }}
      - {name: shared-memory, mountPath: /dev/shm}
      {{- if not $isHead }}
      - {name: cache, mountPath: /cache}
      {{- end }}
volumes:
  {{- include "orchestrator.scratchVolumes" .root | nindent 2 }}
  - {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: {{ int .pod.sharedMemoryGiB }}Gi}}
  {{- if not $isHead }}
  - {{- include "orchestrator.cacheVolume" .root | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "orchestrator.cacheVolume" -}}
name: cache
{{- with .Values.cache }}
{{- if eq .kind "hostPath" }}
hostPath: {path: {{ .hostPath }}, type: Directory}
{{- else if eq .kind "emptyDir" }}
emptyDir: {sizeLimit: {{ int .sizeGiB }}Gi}
{{- else }}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ int .sizeGiB }}Gi}}
{{- end }}
{{- end }}
{{- end }}

{{- /* The site (orchestrator/site.py), and what Ray reads. Jobs inherit the head's. */}}
{{- define "orchestrator.rayEnv" -}}
- {name: SHARDS_ROOT, value: {{ .Values.storage.shardsRoot | quote }}}
- {name: SHARDS_CACHE, value: /cache}
- {name: RUNS_ROOT, value: {{ .Values.storage.runsRoot | quote }}}
{{ include "orchestrator.s3Env" . }}
- {name: MLFLOW_TRACKING_URI, value: {{ include "orchestrator.mlflowUri" . | quote }}}
{{- with .Values.mlflow.auth.secretName }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ . }}, key: runs-username}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: runs-password}}
{{- end }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: HOME, value: /home/orchestrator}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_ENABLE_UV_RUN_RUNTIME_ENV, value: "0"}
- {name: RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S, value: "1"}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ include "orchestrator.drainSeconds" . | quote }}}
# Ray kills a stopped job after 3 s, and a driver takes up to 20 s to have its workers save.
- {name: RAY_JOB_STOP_WAIT_TIME_S, value: {{ add 5 (int (include "orchestrator.graceSeconds" .)) | toString | quote }}}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
