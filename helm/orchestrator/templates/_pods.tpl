{{- /* What every pod has: security, credentials by reference, where it may run. */}}

{{- define "orchestrator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "orchestrator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* Pods of one release do not evict one another. */}}
{{- define "orchestrator.priority" -}}
{{- with .Values.priorityClass.name }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "orchestrator.pull" -}}
image: {{ include "orchestrator.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "orchestrator.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Requests are limits: the scheduler's count is then what Ray counts, and nobody is throttled by
       a neighbour. Takes {cpu, memory, gpus}. */}}
{{- define "orchestrator.resources" -}}
{{- range list "requests" "limits" }}
{{ . }}:
  cpu: {{ $.cpu | toString | quote }}
  memory: {{ $.memory | quote }}
  {{- if $.gpus }}
  nvidia.com/gpu: {{ $.gpus | toString | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Small pods that only talk: submitters, migrations, bucket makers. */}}
{{- define "orchestrator.smallResources" -}}
requests: {cpu: 200m, memory: 512Mi}
limits: {cpu: "1", memory: 512Mi}
{{- end }}

{{- define "orchestrator.s3Env" -}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.storage.region | quote }}}
{{- with include "orchestrator.s3Endpoint" . }}
# Of S3 alone: IRSA's credentials come from STS, which is elsewhere.
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
{{- end }}
{{- with .Values.storage.secretName }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.storage.secretName }}, key: {{ . }}}}
{{- end }}
{{- end }}
{{- if .Values.storage.caConfigMap }}
{{- range list "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" }}
- {name: {{ . }}, value: /etc/site-ca/ca.crt}
{{- end }}
{{- end }}
{{- end }}

{{- define "orchestrator.scratchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/orchestrator}
{{- if .Values.storage.caConfigMap }}
- {name: site-ca, mountPath: /etc/site-ca, readOnly: true}
{{- end }}
{{- end }}

{{- /* All that is writable, since the image is not. */}}
{{- define "orchestrator.scratchVolumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- with .Values.storage.caConfigMap }}
- {name: site-ca, configMap: {name: {{ . }}}}
{{- end }}
{{- end }}

{{- /* Nodes that a cloud may take away at any time carry one of these labels. */}}
{{- define "orchestrator.notOnSpot" -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: karpenter.sh/capacity-type, operator: NotIn, values: [spot]}
          - {key: eks.amazonaws.com/capacityType, operator: NotIn, values: [SPOT]}
          - {key: cloud.google.com/gke-spot, operator: NotIn, values: ["true"]}
          - {key: cloud.google.com/gke-preemptible, operator: NotIn, values: ["true"]}
          - {key: kubernetes.azure.com/scalesetpriority, operator: NotIn, values: [spot]}
{{- end }}

{{- define "orchestrator.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
