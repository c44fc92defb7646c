{{- define "lesionlens.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select a component's pods: dict "root" $ "component" "worker" */ -}}
{{- define "lesionlens.selector" -}}
app.kubernetes.io/name: lesionlens
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "lesionlens.labels" -}}
{{ include "lesionlens.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "lesionlens.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "lesionlens.secret" -}}
{{- .Values.connections.existingSecret | default (printf "%s-connections" (include "lesionlens.name" .)) -}}
{{- end -}}

{{- define "lesionlens.stateClaim" -}}
{{- .Values.state.existingClaim | default (printf "%s-state" (include "lesionlens.name" .)) -}}
{{- end -}}

{{- /* A pod that may not become root, whatever its image says: dict "uid" 10001 */ -}}
{{- define "lesionlens.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "lesionlens.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "lesionlens.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "lesionlens.name" . }}-settings}
  - secretRef: {name: {{ include "lesionlens.secret" . }}}
{{- end -}}

{{- define "lesionlens.mounts" -}}
volumeMounts:
  - name: bundle
    mountPath: /bundle
    readOnly: true
    {{- with .Values.bundle.subPath }}
    subPath: {{ . }}
    {{- end }}
  - {name: state, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- /* dict "root" $ "tmpSize" "1Gi" */ -}}
{{- define "lesionlens.volumes" -}}
volumes:
  - name: bundle
    persistentVolumeClaim: {claimName: {{ .root.Values.bundle.existingClaim }}, readOnly: true}
  - name: state
    persistentVolumeClaim: {claimName: {{ include "lesionlens.stateClaim" .root }}}
  - name: tmp
    emptyDir: {sizeLimit: {{ .tmpSize }}}
{{- end -}}

{{- /* Pods that share a ReadWriteOnce volume must run on one node. */ -}}
{{- define "lesionlens.affinity" -}}
{{- if eq .Values.state.accessMode "ReadWriteOnce" }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/name: lesionlens
            app.kubernetes.io/instance: {{ .Release.Name }}
            lesionlens/state: shared
{{- end }}
{{- end -}}

{{- /* What the schema cannot say: values that contradict each other. */ -}}
{{- define "lesionlens.check" -}}
{{- $s := .Values.inference.service -}}
{{- if and $s.grpc.enabled (eq (int $s.port) (int $s.grpc.port)) -}}
{{- fail "inference.service.grpc.port: must differ from inference.service.port" -}}
{{- end -}}
{{- $c := .Values.connections -}}
{{- if and $c.existingSecret (or $c.redisUrl $c.ledgerUrl) -}}
{{- fail "connections: give existingSecret, or redisUrl and ledgerUrl, not both" -}}
{{- end -}}
{{- if and (not .Values.redis.enabled) (not $c.redisUrl) (not $c.existingSecret) -}}
{{- fail "connections.redisUrl: needed where redis.enabled is false" -}}
{{- end -}}
{{- if and (eq .Values.state.accessMode "ReadWriteMany") (not $c.ledgerUrl) (not $c.existingSecret) -}}
{{- fail "connections.ledgerUrl: needed where state.accessMode is ReadWriteMany, since SQLite must not live on a network file system" -}}
{{- end -}}
{{- end -}}
