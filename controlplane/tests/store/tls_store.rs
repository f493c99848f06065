//! Whose certificate is taken by `verify-ca` and `verify-full`.

use crate::postgres_server::PostgresServer;
use crate::revisions::run;
use controlplane::live::{Store, StoreError};
use controlplane::store::PostgresStore;
use shared::config::model::{Postgres, SslMode};

/// How the store gets on; `Err`: the words for the operator.
async fn reach(config: Postgres) -> Result<(), String> {
    match PostgresStore::new(&config).state().await {
        Ok(_) => Ok(()),
        Err(StoreError::Unavailable(words)) => Err(words),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn certificates_are_checked_as_far_as_the_mode_says() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let good = || server.verified(&database);
        let other = || Some(server.path("other.crt").display().to_string());
        reach(good()).await.unwrap();
        reach(Postgres { ssl_mode: SslMode::VerifyCa, ..good() }).await.unwrap();

        for ssl_mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            let refused = reach(Postgres { ssl_mode, ssl_root_cert: other(), ..good() }).await.unwrap_err();
            assert!(refused.contains("UnknownIssuer") && refused.contains("ssl_root_cert"), "{refused}");
        }
        for ssl_mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            let refused = reach(Postgres { ssl_mode, ssl_root_cert: None, ..good() }).await.unwrap_err();
            assert!(refused.contains("UnknownIssuer") && refused.contains("the public ones"), "{refused}");
        }
        for ssl_mode in [SslMode::Disable, SslMode::Prefer] {
            reach(Postgres { ssl_mode, ssl_root_cert: other(), ..good() }).await.unwrap();
        }
    });
}

#[test]
fn a_certificate_for_another_address_is_taken_by_verify_ca_only() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        reach(Postgres { ssl_mode: SslMode::VerifyCa, ..server.misnamed(&database) }).await.unwrap();
        let refused = reach(server.misnamed(&database)).await.unwrap_err();
        assert!(refused.contains("not valid for name") && refused.contains("verify-ca"), "{refused}");
    });
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        std::fs::write(server.path("empty.crt"), "").unwrap();
        std::fs::write(server.path("broken.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        for name in ["missing.crt", "empty.crt", "broken.crt"] {
            let path = server.path(name).display().to_string();
            let words = reach(Postgres { ssl_root_cert: Some(path.clone()), ..server.verified(&database) }).await;
            let words = words.unwrap_err();
            assert!(words.contains(&path) && words.contains("config_store.config.ssl_root_cert"), "{words}");
        }
    });
}
