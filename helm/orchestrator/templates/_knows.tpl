{{- /* Whether the cluster has an API. Takes {root, api: group/version}. */}}
{{- define "orchestrator.knows" -}}
{{ .root.Capabilities.APIVersions.Has .api }}
{{- end }}
