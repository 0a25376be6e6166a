//! `rediss://`: whom it trusts, and what it says about those it does not.

use std::sync::Arc;

use contextkeep_test_support::{RedisNode, eventually_async};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{SOON, Truth, cache, connected, options, settings, trusts_all};
use crate::redis::RedisLevel;
use crate::remote::SecondLevel;
use crate::settings::{RedisMode, RedisSettings};
use crate::{Origin, Put, Read, Receipt, RemoteError};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A node whose certificate is for this name.
fn node(authority: &Authority, name: &str) -> RedisNode {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    RedisNode::start_with_tls(&certificate.pem(), &key.serialize_pem()).unwrap()
}

/// The settings, and the folder with the authority's file.
fn trusting(url: String, authority: &Authority) -> (RedisSettings, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let settings = RedisSettings {
        ca_file: Some(file),
        ..settings(vec![url])
    };
    (settings, folder)
}

/// How a level is refused that can't come to trust its server.
async fn refusal(settings: &RedisSettings) -> String {
    let redis = RedisLevel::connect(settings, options()).unwrap();
    eventually_async("a refusal", SOON, async || {
        match redis.get(vec!["k".into()]).await.remove(0) {
            Err(RemoteError::Unavailable(why)) if why.contains("certificate") => Some(why),
            Err(_) => None,
            Ok(_) => panic!("it was trusted"),
        }
    })
    .await
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_server_with_a_certificate_of_the_authority_is_used_and_no_other_one() {
    let (ours, other) = (authority("ours"), authority("another"));
    let node = node(&ours, "127.0.0.1");
    let (trusted, _folder) = trusting(node.tls_url(), &ours);
    let (level, _) = connected(&trusted, options()).await;
    level.keeps_the_contract("c").await;
    level.tells("c").await;
    let (_, redis) = connected(&trusted, options()).await;
    let cache = cache(&redis, 16);
    trusts_all(&cache).await;
    let truth = Arc::new(Truth::default());
    let (version, mark) = truth.commit("k");
    let put = Put::value("k", version, "1").mark(mark);
    assert_eq!(cache.put(put).await.unwrap(), Receipt::Acknowledged);
    let past_memory = Read::new().past_first_level();
    let answer = cache
        .get_or_load("k", &past_memory, &truth.loader())
        .await
        .unwrap();
    assert_eq!(answer.origin(), Origin::L2);

    let (mistrusted, _folder) = trusting(node.tls_url(), &other);
    let without = RedisSettings {
        ca_file: None,
        ..mistrusted.clone()
    };
    for settings in [&mistrusted, &without] {
        let why = refusal(settings).await;
        assert!(why.contains("UnknownIssuer") && why.contains("ca_file"), "{why}");
    }
    // As a cluster's endpoint it is refused before anybody asks what it is.
    let as_cluster = RedisSettings {
        mode: RedisMode::Cluster,
        ..mistrusted.clone()
    };
    let why = refusal(&as_cluster).await;
    assert!(why.contains("ca_file"), "{why}");
    // G9: reads are served by the loader.
    let redis = RedisLevel::connect(&mistrusted, options()).unwrap();
    let cache = super::cache(&redis, 16);
    let answer = cache
        .get_or_load("k", &Read::new(), &truth.loader())
        .await
        .unwrap();
    assert_eq!((answer.version(), answer.origin()), (version, Origin::Primary));
}

#[tokio::test]
#[ignore = "needs server binaries"]
async fn a_certificate_for_another_name_is_refused() {
    let ours = authority("ours");
    let node = node(&ours, "elsewhere.example");
    let (settings, _folder) = trusting(node.tls_url(), &ours);
    let why = refusal(&settings).await;
    assert!(
        why.contains("NotValidForName") || why.contains("not valid for name"),
        "{why}"
    );
}

#[tokio::test]
async fn a_ca_file_has_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let with_file = RedisSettings {
        ca_file: Some(file.clone()),
        ..settings(vec!["rediss://127.0.0.1:1".to_owned()])
    };
    let refused = || {
        RedisLevel::connect(&with_file, options())
            .unwrap_err()
            .to_string()
    };
    assert!(refused().contains("ca.pem"), "{}", refused());
    std::fs::write(&file, "no certificate").unwrap();
    assert!(refused().contains("no certificate"), "{}", refused());
    std::fs::write(&file, authority("ours").pem()).unwrap();
    assert!(RedisLevel::connect(&with_file, options()).is_ok());
}
