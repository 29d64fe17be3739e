//! The store as its callers see it, and its files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use holm_model::ModuleId;
use tempfile::TempDir;

use super::*;
use crate::key_store::{AeadError, Signer as _, StoredKey};
use crate::sas::SasToken;
use crate::symmetric_key::KeySlot;

/// The answer of a store that answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the store waits for something"),
    }
}

fn name(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

fn store() -> (TempDir, FileKeyStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
    (directory, store)
}

fn reopened(store: &FileKeyStore) -> FileKeyStore {
    FileKeyStore::open(&store.directory).unwrap()
}

#[test]
fn a_key_is_made_once_and_survives_a_restart() {
    let (_directory, store) = store();

    let handle = now(store.ensure(&name("master"))).unwrap();
    let tag = now(store.sign_hmac_sha256(&handle, b"data")).unwrap();
    let again = reopened(&store);
    let same_handle = now(again.ensure(&name("master"))).unwrap();

    assert_eq!(same_handle, handle);
    assert!(now(again.verify_hmac_sha256(&handle, b"data", &tag)).unwrap());
    assert!(!now(again.verify_hmac_sha256(&handle, b"date", &tag)).unwrap());
    let mode = fs::metadata(store.path(&name("master"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_missing_key_is_named_and_a_deleted_one_is_gone() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("master"))).unwrap();

    now(store.delete(&name("master"))).unwrap();
    now(store.delete(&name("master"))).unwrap();

    assert!(!now(store.contains(&name("master"))).unwrap());
    let error = now(store.sign_hmac_sha256(&handle, b"")).unwrap_err();
    assert!(error.to_string().contains("`master`"), "{error}");
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("master"))).unwrap();
    fs::set_permissions(store.path(&name("master")), fs::Permissions::from_mode(0o644)).unwrap();

    let refused = now(reopened(&store).export(&handle)).unwrap_err();

    assert!(matches!(
        refused,
        KeyStoreError::File(PrivateFileError::TooOpen { mode: 0o644, .. })
    ));
}

#[test]
fn a_broken_key_file_is_refused_and_not_replaced() {
    let (_directory, store) = store();
    for content in [
        "",
        "holm-key 2 MDEyMzQ1Njc4OWFiY2RlZg==",
        "holm-key 1 AAAA",
        "\u{fffd}",
        &"x".repeat(999),
    ] {
        private_file::write(&store.path(&name("master")), content.as_bytes()).unwrap();

        let refused = now(store.ensure(&name("master"))).unwrap_err();

        assert!(matches!(refused, KeyStoreError::Content { .. }), "{refused}");
        assert_eq!(fs::read_to_string(store.path(&name("master"))).unwrap(), content);
    }
}

#[test]
fn an_imported_key_replaces_and_exports_as_it_is() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("device"))).unwrap();
    let key = SymmetricKey::from_bytes([7; 64]).unwrap();

    now(store.import(&name("device"), key.clone())).unwrap();

    assert_eq!(now(store.export(&handle)).unwrap(), key);
    assert_eq!(now(reopened(&store).export(&handle)).unwrap(), key);
}

#[test]
fn a_key_that_is_known_is_imported_without_a_write() {
    let (_directory, store) = store();
    let key = SymmetricKey::from_bytes([7; 64]).unwrap();
    now(store.import(&name("device"), key.clone())).unwrap();
    // A write replaces the file.
    let file = |store: &FileKeyStore| fs::metadata(store.path(&name("device"))).unwrap().ino();
    let before = file(&store);

    now(reopened(&store).import(&name("device"), key)).unwrap();

    assert_eq!(file(&store), before);
}

#[test]
fn a_module_signs_with_the_key_that_was_told_to_the_hub() {
    let (_directory, store) = store();
    now(store.ensure(&name("master"))).unwrap();
    let module = ModuleId::new("modA").unwrap();
    let handle = |slot| KeyHandle::of_module(name("master"), &module, "637", slot);
    let told_to_the_hub = now(store.export(&handle(KeySlot::Primary))).unwrap();
    let signer = StoredKey {
        store: Arc::new(store),
        handle: handle(KeySlot::Primary),
    };

    let token = now(SasToken::sign_with("hub.test/devices/d/modules/modA", 1, None, &signer)).unwrap();

    assert!(token.verify(&told_to_the_hub));
    let secondary = now(signer.store.export(&handle(KeySlot::Secondary))).unwrap();
    assert!(!token.verify(&secondary));
    assert_eq!(now(signer.sign(b"x")).unwrap(), told_to_the_hub.hmac_sha256(b"x"));
}

#[test]
fn what_was_encrypted_decrypts_only_in_the_same_context() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("encryption"))).unwrap();
    for iv in [
        b"123456789012".as_slice(),
        b"short",
        b"a text of thirty-six bytes, as a guid",
    ] {
        let context = AeadContext {
            iv,
            associated_data: b"modA637",
        };
        let ciphertext = now(store.encrypt(&handle, context, b"the data")).unwrap();

        let back = now(store.decrypt(&handle, context, &ciphertext)).unwrap();

        assert_eq!(back.as_slice(), b"the data");
        assert_eq!(ciphertext.len(), 8 + 17);
        let mut changed = ciphertext.clone();
        changed[3] ^= 1;
        for (context, ciphertext) in [
            (
                AeadContext {
                    associated_data: b"modB637",
                    ..context
                },
                &ciphertext,
            ),
            (
                AeadContext {
                    iv: b"another one!",
                    ..context
                },
                &ciphertext,
            ),
            (context, &changed),
        ] {
            let refused = now(store.decrypt(&handle, context, ciphertext)).unwrap_err();
            assert!(
                matches!(refused, KeyStoreError::Aead(AeadError::NotAuthentic)),
                "{refused}"
            );
        }
    }
}

/// The case with all-zero key, vector and block of the published GCM test vectors (AES-256, test case 14).
#[test]
fn a_vector_of_twelve_bytes_gives_plain_aes_gcm() {
    let (_directory, store) = store();
    let handle = now(store.import(&name("zero"), SymmetricKey::from_bytes([0; 32]).unwrap())).unwrap();
    let context = AeadContext {
        iv: &[0; 12],
        associated_data: b"",
    };

    let ciphertext = now(store.encrypt(&handle, context, &[0; 16])).unwrap();

    let hex: String = ciphertext.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "02cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    );
}

#[test]
fn bad_requests_are_refused_by_what_is_wrong() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("k"))).unwrap();
    let long = now(store.import(&name("long"), SymmetricKey::from_bytes([1; 64]).unwrap())).unwrap();
    let context = AeadContext {
        iv: &[0; 12],
        associated_data: b"",
    };
    let error = |answer: Result<_, KeyStoreError>| match answer {
        Err(KeyStoreError::Aead(error)) => error,
        other => panic!("{:?}", other.map(drop)),
    };

    assert_eq!(error(now(store.encrypt(&long, context, b""))), AeadError::KeyLength(64));
    assert_eq!(
        error(now(store.encrypt(&handle, AeadContext { iv: b"", ..context }, b""))),
        AeadError::NoIv
    );
    let huge = vec![0; aead::MAX_BYTES + 1];
    assert_eq!(
        error(now(store.encrypt(&handle, context, &huge))),
        AeadError::TooLarge(huge.len())
    );
    for bad in [b"".as_slice(), b"\x02short", &[9; 40]] {
        assert_eq!(
            error(now(store.decrypt(&handle, context, bad)).map(|_| vec![])),
            AeadError::Format
        );
    }
    assert!(now(store.random(MAX_RANDOM_BYTES + 1)).is_err());
    assert_eq!(now(store.random(33)).unwrap().len(), 33);
    for bad in ["", "a/b", "..", "a.b", &"x".repeat(65)] {
        assert!(KeyName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_store_shows_no_key() {
    let (_directory, store) = store();
    let handle = now(store.ensure(&name("k"))).unwrap();
    let key = now(store.export(&handle)).unwrap();

    let shown = format!("{store:?} {handle:?}");

    assert!(!shown.contains(key.to_base64().expose()), "{shown}");
    assert!(!shown.contains(&format!("{:?}", key.expose_bytes())), "{shown}");
}
