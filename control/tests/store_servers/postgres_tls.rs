//! PostgreSQL over TLS: what is asked of the server's certificate is checked.

use std::path::PathBuf;
use std::time::Duration;

use control::statesync::{PostgresDocuments, PostgresOptions};
use proto::statesync as pb;
use quantum_grpc::Identity;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tempfile::TempDir;

use crate::common::*;

/// A server reads its settings again within this.
const RELOAD_TIME: Duration = Duration::from_secs(10);

/// A server that encrypts with a certificate for its address, and the folder that the certificate is in.
async fn encrypting() -> Option<(PostgresServer, TempDir)> {
    let postgres = PostgresServer::alone().await?;
    let folder = tempfile::tempdir().unwrap();
    Identity::load_or_create(folder.path(), &[]).unwrap();
    let mut admin = postgres.connect().await;
    for (file, kept) in [("cert.pem", "server.crt"), ("key.pem", "server.key")] {
        let pem = std::fs::read_to_string(folder.path().join(file)).unwrap();
        // The key has to be the server's own file, so the server writes it.
        let lines = format!("SELECT unnest(string_to_array('{}', E'\\n'))", pem.trim());
        let write = format!("COPY ({lines}) TO PROGRAM 'umask 077; cat > {kept}'");
        sqlx::raw_sql(AssertSqlSafe(write)).execute(&mut admin).await.unwrap();
    }
    for change in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(change).execute(&mut admin).await.unwrap();
    }
    let options = postgres.options();
    let encrypted = PgConnectOptions::new_without_pgpass().host(&options.host).port(options.port).username("postgres");
    let encrypted = encrypted.database(&options.database).ssl_mode(PgSslMode::Require);
    eventually(RELOAD_TIME, async || encrypted.connect().await).await;
    Some((postgres, folder))
}

/// Encrypted, and only if the server is who its certificate in `folder` says.
fn verified(options: PostgresOptions, folder: &TempDir) -> PostgresOptions {
    let ssl_root_cert: Option<PathBuf> = Some(folder.path().join("cert.pem"));
    PostgresOptions { ssl_mode: PgSslMode::VerifyFull, ssl_root_cert, ..options }
}

#[tokio::test]
async fn documents_go_to_a_postgres_whose_certificate_is_trusted_over_tls_alone() {
    let Some((postgres, folder)) = encrypting().await else { return };
    let mut admin = postgres.connect().await;
    let over_tls = |up: &mut control::up::UpOptions| {
        let options = up.postgres.take().unwrap();
        up.postgres = Some(verified(options, &folder));
    };
    let mut world = World::on_postgres_at(postgres, over_tls).await;
    let create = pb::CreateDocumentRequest {
        name: "a document".into(),
        r#type: "text".into(),
        created_by: "ada".into(),
        ..Default::default()
    };
    world.documents.create_document(create).await.unwrap();
    let connections = "SELECT ssl, count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                       WHERE application_name = 'aetherflow' GROUP BY ssl";
    let connections: Vec<(bool, i64)> = sqlx::query_as(connections).fetch_all(&mut admin).await.unwrap();
    assert!(matches!(connections[..], [(true, 1..)]), "{connections:?}");
}

#[tokio::test]
async fn a_postgres_with_another_certificate_or_none_is_refused_with_what_to_do() {
    let Some((postgres, _folder)) = encrypting().await else { return };
    let Some(plain) = PostgresServer::start().await else { return };
    let other = tempfile::tempdir().unwrap();
    Identity::load_or_create(other.path(), &[]).unwrap();
    let stranger = verified(postgres.options(), &other);
    let in_the_clear = PostgresOptions { ssl_mode: PgSslMode::Require, ..plain.options() };
    let nowhere = PostgresOptions { ssl_root_cert: Some(other.path().join("nowhere.pem")), ..stranger.clone() };
    for options in [stranger, in_the_clear, nowhere] {
        let message = PostgresDocuments::open(&options).await.err().unwrap().to_string();
        assert!(message.contains("Check Store.Postgres.SSLMode and SSLRootCert"), "{message}");
    }
}
