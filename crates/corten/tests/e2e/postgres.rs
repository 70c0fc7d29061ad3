//! A real database: PostgreSQL of Debian's packages as a StatefulSet with a claim.

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;
use corten_testkit::debian;

use crate::namespace;

pub(crate) fn keeps_its_data(cluster: &mut Cluster) -> Result<()> {
    let root = debian::rootfs("postgres-15", &["postgresql-15", "bash", "dash", "coreutils", "hostname"])?;
    let passwd = root.join("etc/passwd");
    let mut users = std::fs::read_to_string(&passwd)?;
    if !users.contains("postgres:") {
        users.push_str("postgres:x:999:999:postgres:/var/lib/postgresql:/bin/bash\n");
        std::fs::write(&passwd, users)?;
        std::fs::write(root.join("etc/group"), "root:x:0:\npostgres:x:999:\n")?;
    }
    cluster.build_image(&root, "test.local/postgres:15", &["--user", "999:999"])?;
    namespace(cluster, "pg")?;
    cluster.kubectl_with(&["-n", "pg", "apply", "-f", "-"], MANIFEST)?;
    ready(cluster)?;
    sql(cluster, "create table t (n int); insert into t values (1)")?;
    cluster.kubectl(&["-n", "pg", "delete", "pod", "pg-0"])?;
    ready(cluster)?;
    expect(cluster, 1)?;
    sql(cluster, "insert into t values (2)")?;
    cluster.kill_server()?;
    cluster.start()?;
    ready(cluster)?;
    expect(cluster, 2)?;
    sql(cluster, "insert into t values (3)")?;
    cluster.stop()?;
    cluster.start()?;
    ready(cluster)?;
    expect(cluster, 3)?;
    cluster.kubectl(&["delete", "namespace", "pg", "--timeout=60s"]).map(drop)
}

fn ready(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["-n", "pg", "wait", "--for=create", "pod/pg-0", "--timeout=30s"])?;
    cluster.kubectl(&["-n", "pg", "rollout", "status", "statefulset/pg", "--timeout=120s"])?;
    cluster.kubectl(&["-n", "pg", "wait", "--for=condition=Ready", "pod/pg-0", "--timeout=120s"]).map(drop)
}

fn sql(cluster: &Cluster, statement: &str) -> Result<String> {
    let psql = "/usr/lib/postgresql/15/bin/psql";
    cluster.kubectl(&["-n", "pg", "exec", "pg-0", "--", psql, "-h", "/tmp", "-d", "postgres", "-Atc", statement])
}

fn expect(cluster: &Cluster, rows: u32) -> Result<()> {
    let count = sql(cluster, "select count(*) from t").context("the table is gone")?;
    if count.trim() == rows.to_string() {
        Ok(())
    } else {
        bail!("{rows} rows were written, {} are there", count.trim())
    }
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: pg}
spec: {clusterIP: None, selector: {app: pg}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: pg}
spec:
  serviceName: pg
  selector: {matchLabels: {app: pg}}
  template:
    metadata: {labels: {app: pg}}
    spec:
      securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999}
      containers:
      - name: pg
        image: test.local/postgres:15
        command: [bash, -ec]
        args:
        - |
          export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/data/pg
          [ -s $PGDATA/PG_VERSION ] || initdb --locale=C.UTF-8 -A trust
          chmod 0700 $PGDATA
          exec postgres -c unix_socket_directories=/tmp -c listen_addresses='*'
        readinessProbe:
          exec: {command: [/usr/lib/postgresql/15/bin/pg_isready, -h, /tmp]}
          periodSeconds: 1
        volumeMounts:
        - {name: data, mountPath: /data}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 256Mi}}}
"#;
