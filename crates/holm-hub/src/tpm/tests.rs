use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_identity::SymmetricKey;
use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::crypto::{Hash, cfb_encrypt};
use super::public_area::Asymmetric;
use super::*;

/// Both keys of a TPM in software (swtpm), as the Node SDK makes and shows them.
pub(crate) const EK: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEAqlK3cDQgu6R4BTKLFvRMYrtxclbRecRZwdK0Z2wddxKbgLfDrcFvcq8aXAlj3QtfWenZg11UU9hjDvxXHvDEo3i3YQDxgkPoQ667qpYwhel1+vEOKM7cGoc0LTCZaIrm5upJsAJFiMIdLlNXOBEwbpDzelLAEF1Pe0rjvf5M89Pxn9MNSD9IKg91vQQUUwQnIiA3fvrn3iv6Wyx+HJ7erJP7XzfSFEwXZBC6dn0qhW6+6anq3jlshorjvmkaNkIh/PQdzbOHnYa47TfbKYT0kEnd9w8AixGJu0ARe9yET9LzgZcCSy62AL5lfUGxdgiAvhJKSi2c1S4SGBVg+eqkLw==";
const SRK: &str = "ARoAAQALAAMEcgAAAAYAgABDABAIAAAAAAABAKe1nubsbEOq5p3GOk1IBHj4R5sqS970ITAWZSdTtBugEYNo9cX3MTI/Z1Ck2eb642PJr8SBaCIiIBb7UU/b6U0BK2oc5E7z2501eH5difabLOgkeuH9t0cXe7eIBHvnxGiKLjLMSfFchrr4kFThlx+RLiJ9netJVqUgJcJpxaHge3nsivqTEoKWjnt1+PjBM08IAxFiz7iJqMc+gNhzsF0k7o1bpwMLyUGL2r1Do2U2dVJwqn+Au5QxPoQ4FrqLstzE/1yo3lznwLZmMbhFpMwlCMcU/27BDpQUVTZ4E58MXLxPSMSWIkuBBQekxj47jvixsiFqrBlXEmUekuZztRU=";

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// A storage key on a curve, whose point is that of the curve's generator.
fn on_p256() -> Vec<u8> {
    let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    let y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let hex = format!("0023000b0003047200000006008000430010000300100020{x}0020{y}");
    let digit = |digit: &u8| u8::try_from(char::from(*digit).to_digit(16).unwrap()).unwrap();
    let pairs = hex.as_bytes().chunks(2);
    let area: Vec<u8> = pairs.map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect();
    [&u16::try_from(area.len()).unwrap().to_be_bytes()[..], &area].concat()
}

fn with(at: usize, value: &[u8]) -> Result<PublicArea, InvalidPublicArea> {
    let mut changed = bytes(EK);
    changed[at..at + value.len()].copy_from_slice(value);
    PublicArea::read(&changed)
}

#[test]
fn the_keys_that_an_sdk_shows_are_read() {
    let (endorsement, root) = (
        PublicArea::read(&bytes(EK)).unwrap(),
        PublicArea::read(&bytes(SRK)).unwrap(),
    );

    for key in [&endorsement, &root] {
        assert!(
            matches!(&key.key, Asymmetric::Rsa { modulus, exponent: 65_537 } if modulus.len() == 256),
            "{key:?}"
        );
        assert_eq!((key.name_hash, key.symmetric_bits), (Hash::Sha256, 128));
        assert_eq!((key.name().len(), &key.name()[..2]), (34, &[0, 0x0b][..]));
    }
    assert_eq!(endorsement.wire(), bytes(EK));
    let curve = PublicArea::read(&on_p256()).unwrap();
    assert!(matches!(curve.key, Asymmetric::Ecc { .. }));
}

#[test]
fn what_can_not_be_such_a_key_is_refused_by_the_field() {
    let whole = bytes(EK);
    let refused = [
        (with(2, &[0, 8]), "`type` is 0x0008"),
        (with(4, &[0, 4]), "`nameAlg` is 0x0004"),
        (with(6, &[0, 7, 0, 0xb2]), "attributes are 0x000700b2"),
        (with(6, &[0, 3, 0, 0xb0]), "attributes are 0x000300b0"),
        (with(44, &[0, 0x10]), "`symmetric.algorithm` is 0x0010"),
        (with(46, &[0, 192]), "`symmetric.keyBits` is 0x00c0"),
        (with(48, &[0, 0x44]), "`symmetric.mode` is 0x0044"),
        (with(50, &[0, 0x14]), "`scheme` is 0x0014"),
        (with(52, &[4, 0]), "`keyBits` is 0x0400"),
        (with(54, &[0, 0, 0, 3]), "`exponent` is 0x0003"),
        (with(60, &[0x2a]), "`unique`"),
        (with(58, &[0xff, 0xff]), "ends within `unique`"),
        (PublicArea::read(&[]), "ends within `size`"),
        (PublicArea::read(&whole[2..]), "311 bytes follow"),
        (PublicArea::read(&[&whole[..], &[0]].concat()), "1 bytes follow"),
        (PublicArea::read(&vec![0; 2000]), "2000 bytes"),
    ];

    for (outcome, expected) in refused {
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn a_key_is_sealed_anew_each_time_in_the_published_parts() {
    let (endorsement, root) = (
        PublicArea::read(&bytes(EK)).unwrap(),
        PublicArea::read(&bytes(SRK)).unwrap(),
    );
    let key = SymmetricKey::from_bytes([7; 32]).unwrap();
    let parts = |mut sealed: &[u8]| {
        let mut lengths = Vec::new();
        while let Some((length, rest)) = sealed.split_at_checked(2) {
            let length = usize::from(u16::from_be_bytes(length.try_into().unwrap()));
            lengths.push(length);
            sealed = &rest[length..];
        }
        lengths
    };

    let first = seal(&key, &endorsement, &root, &SystemRandom::new()).unwrap();
    let second = seal(&key, &endorsement, &root, &SystemRandom::new()).unwrap();
    let curve = PublicArea::read(&on_p256()).unwrap();
    let on_curve = seal(&key, &curve, &curve, &SystemRandom::new()).unwrap();

    // Credential: HMAC and 18 bytes; duplicate: HMAC, inner HMAC and the sensitive area of 74; public area of 48.
    assert_eq!(parts(&first), [34 + 18, 256, 34 + 34 + 74, 256, 48, 0]);
    assert_eq!(parts(&on_curve), [34 + 18, 68, 34 + 34 + 74, 68, 48, 0]);
    assert_ne!(first, second);
    assert!(!first.windows(32).any(|window| window == [7; 32]));
}

#[test]
fn a_point_that_is_on_no_curve_is_refused() {
    let mut area = on_p256();
    let last = area.len() - 1;
    area[last] ^= 1;
    let key = SymmetricKey::from_bytes([7; 32]).unwrap();
    let public = PublicArea::read(&area).unwrap();

    let refused = seal(&key, &public, &public, &SystemRandom::new());

    assert_eq!(refused, Err(SealError::Point));
}

/// FIPS 197: the block of zeros under the key of zeros.
#[test]
fn cfb_begins_with_the_block_of_zeros_and_goes_on_with_what_it_made() {
    let zeros = [
        0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b, 0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34, 0x2b, 0x2e,
    ];

    let one = cfb_encrypt(&[0; 16], &[0; 16]).unwrap();
    let two = cfb_encrypt(&[0; 16], &[0; 37]).unwrap();
    let back = cfb_encrypt(&[0; 16], &zeros).unwrap();

    assert_eq!(one, zeros);
    assert_eq!((two.len(), &two[..16]), (37, &zeros[..]));
    assert_eq!(back, [0; 16]);
    assert_ne!(two[16..32], zeros);
    assert_eq!(cfb_encrypt(&[0; 24], &[0]), Err(SealError::Key));
    assert_eq!(cfb_encrypt(&[0; 32], &[0; 5]).unwrap().len(), 5);
}

#[test]
fn a_derived_key_has_the_bits_that_are_asked_for() {
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let long = hash.kdfa(b"seed", "STORAGE", b"name", 1024);
        let other = hash.kdfa(b"seed", "STORAGE", b"name", 128);

        assert_eq!((long.len(), other.len()), (128, 16));
        assert_ne!(long[..16], other[..], "the length is part of what is derived");
        assert_eq!(hash.kdfe(b"z", "IDENTITY", (b"u", b"v")).len(), hash.bytes());
    }
}

proptest! {
    #[test]
    fn bytes_of_anybody_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
        let _outcome = PublicArea::read(&bytes);
    }

    #[test]
    fn a_mutated_key_is_read_or_refused_and_what_is_read_is_whole(
        at in 0_usize..316,
        value in any::<u8>(),
        cut in 0_usize..317,
    ) {
        let mut changed = bytes(EK);
        changed[at] = value;
        changed.truncate(cut);
        if let Ok(read) = PublicArea::read(&changed) {
            prop_assert_eq!(read.wire(), &changed[..]);
            prop_assert_eq!(changed.len(), 316);
        }
    }
}
