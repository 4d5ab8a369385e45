{{/* The image of the gate or of the module. A tag takes the place of the digest without `production` only. */}}
{{- define "vkey.image" -}}
{{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}

{{/* The names of the variables that the module gets. */}}
{{- define "vkey.variables" -}}
{{ keys .Values.secrets | sortAlpha | toJson }}
{{- end }}

{{/* The variables of the proxy's container. */}}
{{- define "vkey.env" -}}
{{- range $variable, $secret := .Values.secrets }}
- name: {{ $variable | quote }}
  valueFrom: {secretKeyRef: {name: {{ $secret.name | quote }}, key: {{ $secret.key | quote }}}}
{{- end }}
{{- end }}

{{/* Without its variable the module would refuse every request. */}}
{{- define "vkey.check" -}}
{{- range regexFindAll "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" (toJson .Values.config) -1 }}
{{- $variable := trimPrefix "${" . | trimSuffix "}" }}
{{- if not (hasKey $.Values.secrets $variable) }}
{{- fail (printf "config names %s, which is not in secrets" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where requests go that the gate allows. A sidecar's application is in the same pod. */}}
{{- define "vkey.upstream" -}}
{{ if eq .Values.mode "sidecar" }}127.0.0.1{{ else }}{{ .Values.upstream.host }}{{ end }}
{{- end }}

{{/* The labels of the pods with a gate. */}}
{{- define "vkey.selector" -}}
{{ if eq .Values.mode "sidecar" }}{vkey-pod: gate}{{ else }}{app.kubernetes.io/name: vkey-gate}{{ end }}
{{- end }}

{{- define "vkey.envoy" -}}
{{ include "vkey.check" . }}{{ tpl (.Files.Get "files/envoy.yaml") . }}
{{- end }}

{{/* The name ends with a hash of the content, so a change of the configuration is a rollout. */}}
{{- define "vkey.configmap" -}}
vkey-gate-{{ include "vkey.envoy" . | sha256sum | trunc 10 }}
{{- end }}

{{/* One worker for each CPU of the limit. */}}
{{- define "vkey.workers" -}}
{{- $cpu := toString .Values.resources.limits.cpu }}
{{- $milli := hasSuffix "m" $cpu | ternary (trimSuffix "m" $cpu | float64) (mulf ($cpu | float64) 1000.0) }}
{{- divf $milli 1000.0 | ceil }}
{{- end }}

{{/* The container of the gate. */}}
{{- define "vkey.container" -}}
name: gate
image: {{ include "vkey.image" . }}
args:
- --config-path
- /etc/envoy/envoy.yaml
- --disable-hot-restart
# One worker for each CPU of the limit below. By default Envoy starts one for each CPU of the node.
- --concurrency
- {{ include "vkey.workers" . | quote }}
- --log-level
- warning
- --file-flush-interval-msec
- "1000"
# The host in audit lines.
- --service-node
- $(POD_NAME)
- --service-cluster
- vkey-gate
env:
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{ include "vkey.env" . | trim }}
ports:
- {name: gate, containerPort: 10000}
# Not ready without a secret or a usable configuration. A restart would not help, so liveness asks for less.
readinessProbe:
  httpGet: {path: /.vkey/ready, port: 10000}
  periodSeconds: 5
  timeoutSeconds: 2
livenessProbe:
  tcpSocket: {port: 10000}
  initialDelaySeconds: 10
lifecycle:
  # New connections stop first.
  preStop: {sleep: {seconds: 20}}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10101
  runAsGroup: 10101
  seccompProfile: {type: RuntimeDefault}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
- {name: envoy, mountPath: /etc/envoy, readOnly: true}
{{- end }}

{{/* The volume of the container. */}}
{{- define "vkey.volume" -}}
name: envoy
configMap: {name: {{ include "vkey.configmap" . }}}
{{- end }}

{{/* The container as a sidecar, an entry of `initContainers`: it starts before the application, and ends after it. */}}
{{- define "vkey.sidecar" -}}
{{ include "vkey.container" . }}
restartPolicy: Always
{{- end }}

{{/* The same Gateway for the module and for the seal. */}}
{{- define "vkey.targetRefs" -}}
- group: gateway.networking.k8s.io
  kind: Gateway
  name: {{ .Values.envoyGateway.gateway | quote }}
{{- end }}
