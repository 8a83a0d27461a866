{{- define "consul-registrar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The name of all objects; shortened so that every suffix fits. */ -}}
{{- define "consul-registrar.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "consul-registrar.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "consul-registrar.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The name of cluster-wide objects: two releases of one name in two namespaces must not meet. */ -}}
{{- define "consul-registrar.clusterName" -}}
{{- $full := include "consul-registrar.fullname" . -}}
{{- if eq $full .Release.Namespace -}}{{ $full }}{{- else -}}{{ $full }}-{{ .Release.Namespace }}{{- end -}}
{{- end -}}

{{- define "consul-registrar.selector" -}}
app.kubernetes.io/name: {{ include "consul-registrar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* The metadata of an object. Takes root, name, component, and perhaps labels and annotations of its own. */ -}}
{{- define "consul-registrar.metadata" -}}
name: {{ .name }}
labels:
  {{- include "consul-registrar.labels" . | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "consul-registrar.labels" -}}
{{- $standard := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/name" (include "consul-registrar.name" .root)
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "consul-registrar"
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $standard (default dict .labels) .root.Values.commonLabels) -}}
{{- end -}}

{{- define "consul-registrar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "consul-registrar.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "consul-registrar.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* Secrets that the operator must read, as {"items": [{namespace, names}]}: those of the connection, and more. */ -}}
{{- define "consul-registrar.secrets" -}}
{{- $items := deepCopy .Values.rbac.secrets -}}
{{- if .Values.connection.create -}}
{{- $spec := .Values.connection.spec -}}
{{- $shown := dig "tls" "clientCertificate" dict $spec -}}
{{- range list (dig "auth" "token" dict $spec) (dig "tls" "ca" dict $spec) $shown.certificate $shown.key -}}
{{- with . -}}{{- with .secretKeyRef -}}
{{- $item := dict "namespace" .namespace "names" (list .name) -}}
{{- if not (has $item $items) -}}{{- $items = append $items $item -}}{{- end -}}
{{- end -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end -}}

{{- /* The variables by which traces are sent, none where they aren't. */ -}}
{{- define "consul-registrar.traces" -}}
{{- $traces := .Values.traces -}}
{{- $variables := list -}}
{{- if $traces.enabled -}}
{{- if not $traces.endpoint -}}
{{- fail "traces.endpoint must be set: the collector that takes OTLP over HTTP, as http://collector.observability:4318" -}}
{{- end -}}
{{- $variables = append $variables (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" $traces.endpoint) -}}
{{- $variables = append $variables (dict "name" "OTEL_TRACES_SAMPLER" "value" $traces.sampler) -}}
{{- if hasSuffix "traceidratio" $traces.sampler -}}
{{- $variables = append $variables (dict "name" "OTEL_TRACES_SAMPLER_ARG" "value" (toString $traces.samplerArg)) -}}
{{- end -}}
{{- with $traces.resourceAttributes -}}
{{- $pairs := list -}}
{{- range $name, $value := . -}}
{{- $pairs = append $pairs (printf "%s=%s" $name ($value | urlquery | replace "+" "%20")) -}}
{{- end -}}
{{- $variables = append $variables (dict "name" "OTEL_RESOURCE_ATTRIBUTES" "value" (join "," $pairs)) -}}
{{- end -}}
{{- with $traces.headersSecret.name -}}
{{- $ref := dict "secretKeyRef" (dict "name" . "key" $traces.headersSecret.key) -}}
{{- $variables = append $variables (dict "name" "OTEL_EXPORTER_OTLP_HEADERS" "valueFrom" $ref) -}}
{{- end -}}
{{- end -}}
{{- range $given := .Values.extraEnv -}}
{{- range $variables -}}
{{- if eq .name $given.name -}}
{{- fail (printf "extraEnv must leave out %s: traces sets it" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $variables -}}
{{- end -}}

{{- define "consul-registrar.loginTokenFile" -}}
/var/run/secrets/consul-registrar.dev/login/token
{{- end -}}

{{- /* What the operator does with objects of namespaces: the same in a ClusterRole and in Roles. */ -}}
{{- define "consul-registrar.namespacedRules" -}}
- apiGroups: [consul-registrar.dev]
  resources: [serviceregistrations]
  verbs: [get, list, watch, patch]   # patch: its finalizer
- apiGroups: [consul-registrar.dev]
  resources: [serviceregistrations/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if .Values.readinessGate.enabled }}
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
{{- if .Values.annotatedWorkloads.enabled }}
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, list, watch]
- apiGroups: [consul-registrar.dev]
  resources: [serviceregistrations]
  verbs: [create, delete]
{{- end }}
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- /* Where `helm test` registers its Pod: a namespace that the operator watches. */ -}}
{{- define "consul-registrar.testNamespace" -}}
{{- if or (empty .Values.watch.namespaces) (has .Release.Namespace .Values.watch.namespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ first .Values.watch.namespaces }}
{{- end -}}
{{- end -}}

{{- /* A Role and its binding in each namespace of Secrets. Takes root, name, component, subject, and annotations. */ -}}
{{- define "consul-registrar.secretRoles" -}}
{{- $given := . -}}
{{- range $number, $item := (include "consul-registrar.secrets" .root | fromJson).items }}
{{- $name := printf "%s-%d" $given.name $number }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "consul-registrar.metadata" (merge (dict "name" $name) $given) | nindent 2 }}
  namespace: {{ $item.namespace }}
rules:
- apiGroups: [""]
  resources: [secrets]
  {{- with $item.names }}
  resourceNames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "consul-registrar.metadata" (merge (dict "name" $name) $given) | nindent 2 }}
  namespace: {{ $item.namespace }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
- {{ toJson $given.subject }}
{{- end }}
{{- end -}}

{{- /* A Pod's spec that runs one script of files/ in the operator's image. Takes root, serviceAccount, script,
       configMap, and perhaps env and ports. */ -}}
{{- define "consul-registrar.scriptPod" -}}
{{- $values := .root.Values -}}
restartPolicy: Never
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "dnsPolicy" "dnsConfig" }}
{{- with get $values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
containers:
- name: main
  image: {{ include "consul-registrar.image" .root | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command: [python3, /scripts/{{ .script }}]
  {{- with .env }}
  env:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .ports }}
  ports:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext:
    {{- toYaml $values.securityContext | nindent 4 }}
  volumeMounts:
  - {name: scripts, mountPath: /scripts, readOnly: true}
volumes:
- name: scripts
  configMap: {name: {{ .configMap }}}
{{- end -}}
