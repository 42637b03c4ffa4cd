{{- /* Whether the cluster has an API. Takes {root, kind: group/version/Kind}. */}}
{{- define "orchestrator.knows" -}}
{{ .root.Capabilities.APIVersions.Has .kind }}
{{- end }}
