{{- /* Names, labels, the image. KubeRay refuses RayJobs of more than 47 characters: 30, and a job's 16. */}}

{{- define "orchestrator.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "orchestrator" $name) }}{{ $name = printf "%s-orchestrator" $name }}{{ end -}}
{{- $name | trunc 30 | trimSuffix "-" -}}
{{- end }}

{{- define "orchestrator.selector" -}}
app.kubernetes.io/name: orchestrator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "orchestrator.labels" -}}
{{ include "orchestrator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "orchestrator.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end }}

{{- /* One value, four times: see values.yaml, shutdown. In whole seconds. */}}
{{- define "orchestrator.drainSeconds" -}}
{{ div (mul 3 (int .Values.shutdown.checkpointSeconds)) 2 }}
{{- end }}
{{- define "orchestrator.graceSeconds" -}}
{{ mul 2 (int .Values.shutdown.checkpointSeconds) }}
{{- end }}

{{- define "orchestrator.mlflowUri" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "orchestrator.name" . }}-mlflow:5000
{{- else -}}
{{ .Values.mlflow.externalUri }}
{{- end -}}
{{- end }}

{{- define "orchestrator.s3Endpoint" -}}
{{- if .Values.trial.s3.enabled -}}
http://{{ include "orchestrator.name" . }}-s3:8333
{{- else -}}
{{ .Values.storage.endpoint }}
{{- end -}}
{{- end }}

{{- /* What JSON Schema cannot say: comparisons of two values. */}}
{{- define "orchestrator.check" -}}
{{- $names := list -}}
{{- range .Values.workers -}}
{{- if gt (int .min) (int .max) }}{{ fail (printf "workers %s: min %d is more than max %d" .name (int .min) (int .max)) }}{{ end -}}
{{- if has .name $names }}{{ fail (printf "workers %s: two groups have this name" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- if ge (int .sharedMemoryGiB) (int (include "orchestrator.gib" .memory)) }}{{ fail (printf "workers %s: sharedMemoryGiB %d must be less than memory %s, which it is a part of" .name (int .sharedMemoryGiB) .memory) }}{{ end -}}
{{- end -}}
{{- with .Values.ray.head -}}
{{- if ge (int .sharedMemoryGiB) (int (include "orchestrator.gib" .memory)) }}{{ fail (printf "ray.head: sharedMemoryGiB %d must be less than memory %s, which it is a part of" (int .sharedMemoryGiB) .memory) }}{{ end -}}
{{- end -}}
{{- with .Values.ray -}}
{{- if and .autoscaling.enabled (semverCompare "<2.56.0" .version) -}}
{{- range $.Values.workers }}{{ if .priority }}{{ fail (printf "workers %s: KubeRay knows priority from Ray 2.56 on, and ray.version is %s" .name $.Values.ray.version) }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if .Values.network.enabled -}}
{{- $egress := .Values.network.egress -}}
{{- range list (list "storage.endpoint" "s3" .Values.storage.endpoint) (list "mlflow.externalUri" "mlflow" .Values.mlflow.externalUri) (list "ray.gcs.redisAddress" "redis" .Values.ray.gcs.redisAddress) -}}
{{- $value := index . 0 }}{{ $flow := index . 1 }}{{ $url := index . 2 -}}
{{- $host := regexReplaceAll "^[a-z]+://([^/]*).*$" $url "${1}" -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http://" $url)) -}}
{{- if and $url (not (has $port (include "orchestrator.texts" (get $egress $flow).ports | fromYamlArray))) }}{{ fail (printf "%s is on port %s, which network.egress.%s.ports do not have" $value $port $flow) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $jobs := list -}}
{{- range $job := .Values.jobs -}}
{{- if has $job.name $jobs }}{{ fail (printf "jobs %s: two jobs have this name" $job.name) }}{{ end -}}
{{- $jobs = append $jobs $job.name -}}
{{- range default $names $job.groups -}}
{{- if not (has . $names) }}{{ fail (printf "jobs %s: group %s is none of workers: %s" $job.name . (join ", " $names)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Numbers as texts: Helm has them as int or as float, by where they come from. */}}
{{- define "orchestrator.texts" -}}
{{- range . }}
- {{ int . | toString | quote }}
{{- end }}
{{- end }}

{{- /* "16Gi" -> 16 */}}
{{- define "orchestrator.gib" -}}
{{ trimSuffix "Gi" . }}
{{- end }}
