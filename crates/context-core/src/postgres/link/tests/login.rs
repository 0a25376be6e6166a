//! Who we are, and whether the way there is protected.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// The first error of a session and of a read, which have to be the same.
async fn refusal(dsn: &str, settings: &DatabaseSettings) -> Fault {
    let endpoint = endpoint_at(dsn, settings);
    let fault = endpoint.session().await.expect_err("a refusal");
    let read = endpoint.query(&ONE, &[]).await.expect_err("a refusal");
    assert_eq!(fault.kind(), read.kind());
    assert!(!format!("{fault} {fault:?}").contains("geheim"), "{fault}");
    fault
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_wrong_password_and_a_missing_database_say_what_to_do() {
    let cluster = PgCluster::builder().start().unwrap();
    let member = cluster.primary();
    let hba = member.daemon().data().join("pg_hba.conf");
    let stock = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host all somebody all scram-sha-256\n{stock}")).unwrap();
    member
        .sql("create role somebody login password 'richtig'")
        .unwrap();
    member.sql("select pg_reload_conf()").unwrap();
    let dsn = |password: &str| format!("postgres://somebody:{password}@{}/contextkeep", member.addr());
    // The reload takes a moment.
    eventually_async("passwords to be asked for", SOON, async || {
        endpoint_at(&dsn("geheim"), &settings()).session().await.err()
    })
    .await;

    let fault = refusal(&dsn("geheim"), &settings()).await;
    assert_eq!((fault.kind(), fault.sqlstate()), (Kind::Login, Some("28P01")));
    assert!(
        fault.to_string().contains("context_manager.database.dsn"),
        "{fault}"
    );
    let fault = refusal(
        &format!("postgres://somebody@{}/contextkeep", member.addr()),
        &settings(),
    )
    .await;
    assert_eq!(fault.kind(), Kind::Login, "{fault}");
    assert!(endpoint_at(&dsn("richtig"), &settings()).session().await.is_ok());

    let fault = refusal(&member.dsn_at(member.addr(), "absent"), &settings()).await;
    assert_eq!(
        (fault.kind(), fault.sqlstate()),
        (Kind::NoDatabase, Some("3D000"))
    );
    assert!(fault.to_string().contains("create it"), "{fault}");
    at_rest(member, 2).await;
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn sslmode_means_what_it_says() {
    static ENCRYPTED: Statement = Statement {
        name: "encrypted",
        sql: "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        types: &[],
    };
    let cluster = PgCluster::builder().start().unwrap();
    let member = cluster.primary();
    let folder = tempfile::tempdir().unwrap();
    let (ca, other_ca) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    let authority = authority();
    fs::write(&ca, authority.pem()).unwrap();
    fs::write(&other_ca, self::authority().pem()).unwrap();
    let dsn = |mode: &str| format!("{}?sslmode={mode}", member.dsn());
    let with = |file: &std::path::Path| DatabaseSettings {
        ca_file: Some(file.to_owned()),
        ..settings()
    };

    // The server has no TLS yet.
    let fault = refusal(&dsn("require"), &with(&ca)).await;
    assert_eq!(fault.kind(), Kind::Tls, "{fault}");
    assert!(fault.to_string().contains("sslmode=disable"), "{fault}");
    assert!(
        endpoint_at(&dsn("prefer"), &settings())
            .query(&ONE, &[])
            .await
            .is_ok()
    );

    serve_tls(member, &authority);
    let encrypted = async |mode: &str, settings: &DatabaseSettings| {
        let rows = endpoint_at(&dsn(mode), settings).query(&ENCRYPTED, &[]).await?;
        Ok::<bool, Fault>(rows[0].get(0))
    };
    eventually_async("the server to encrypt", SOON, async || {
        encrypted("prefer", &settings()).await.unwrap().then_some(())
    })
    .await;
    assert!(!encrypted("disable", &settings()).await.unwrap());
    assert!(encrypted("require", &with(&ca)).await.unwrap());
    assert!(encrypted("verify-full", &with(&ca)).await.unwrap());
    // Another authority's, and the system's.
    for settings in [with(&other_ca), settings()] {
        let fault = refusal(&dsn("verify-full"), &settings).await;
        assert_eq!(fault.kind(), Kind::Tls, "{fault}");
        assert!(fault.to_string().contains("ca_file"), "{fault}");
    }
    // A cancel request is encrypted as well.
    let endpoint = endpoint_at(
        &dsn("verify-full"),
        &DatabaseSettings {
            statement_timeout: Duration::from_millis(1),
            ..with(&ca)
        },
    );
    let session = endpoint.session().await.unwrap();
    let long = 30.0_f64;
    assert_eq!(
        session.query(&SLEEP, &[&long]).await.unwrap_err().kind(),
        Kind::TimedOut
    );
    drop(session);
    at_rest(member, 1).await;
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Gives the server a certificate for its address, signed by the authority.
fn serve_tls(member: &PgMember, authority: &CertifiedIssuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([member.addr().ip().to_string()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    // Written by the server itself: a key has to be its own, whoever runs this test.
    for (name, pem) in [
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        let lines = pem.trim().replace('\n', "','");
        let sql = format!("copy (select unnest(array['{lines}'])) to program 'umask 077; cat > {name}'");
        member.sql(&sql).unwrap();
    }
    member.sql("alter system set ssl = on").unwrap();
    member.sql("select pg_reload_conf()").unwrap();
}
