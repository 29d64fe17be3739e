//! Thumbprints and authorities, with dates.

use super::*;
use crate::ca::CertificateAuthority;
use crate::certificate::TlsIdentity;

const DAY_MILLIS: i64 = 86_400_000;

fn start() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("plant authority", 365, start()).unwrap()
}

fn certificate_of(authority: &CertificateAuthority, device: &str) -> TlsIdentity {
    authority.issue_client(device, &[""; 0], 10, start()).unwrap()
}

fn trusted(authority: &CertificateAuthority) -> Vec<SigningCertificate> {
    SigningCertificate::all_of(authority.certificate_pem().as_bytes()).unwrap()
}

fn thumbprint(text: &str) -> Thumbprint {
    text.parse().unwrap()
}

#[test]
fn a_certificate_matches_its_thumbprints_in_either_case() {
    let device = certificate_of(&authority(), "dev1");
    let info = device.info().unwrap();
    let other = thumbprint(&"0".repeat(40));

    for text in [
        &info.sha1,
        &info.sha256,
        &info.sha1.to_uppercase(),
        &info.sha256.to_uppercase(),
    ] {
        let registered = [other.clone(), thumbprint(text)];
        thumbprint_matches(device.chain(), &registered, start()).unwrap();
    }
    let refused = thumbprint_matches(device.chain(), &[other], start()).unwrap_err();
    assert!(refused.to_string().contains(&info.sha256), "{refused}");
    assert!(thumbprint_matches(device.chain(), &[], start()).is_err());
    assert!(matches!(
        thumbprint_matches(&[], &[], start()),
        Err(CertificateRefused::None)
    ));
}

#[test]
fn a_certificate_that_has_ended_or_not_begun_is_refused() {
    let authority = authority();
    let device = certificate_of(&authority, "dev1");
    let registered = [thumbprint(&device.info().unwrap().sha256)];
    let id = DeviceId::new("dev1").unwrap();

    for days in [-401, 11] {
        let now = start().plus_millis(days * DAY_MILLIS);
        let by_thumbprint = thumbprint_matches(device.chain(), &registered, now);
        let by_authority = authority_vouches_for(device.chain(), &trusted(&authority), &id, now);

        assert!(matches!(by_thumbprint, Err(CertificateRefused::Dates { .. })));
        assert!(matches!(by_authority, Err(CertificateRefused::Dates { .. })));
    }
}

#[test]
fn what_is_no_thumbprint_is_refused() {
    for bad in [
        "",
        "AA:BB",
        &"g".repeat(40),
        &"a".repeat(41),
        &"a".repeat(63),
        &"ä".repeat(20),
    ] {
        assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
    }
}

#[test]
fn an_authority_vouches_for_its_own_device_by_exact_name() {
    let (own, foreign) = (authority(), authority());
    let check = |device: &TlsIdentity, id: &str| {
        let id = DeviceId::new(id).unwrap();
        authority_vouches_for(device.chain(), &trusted(&own), &id, start())
    };

    let good = certificate_of(&own, "dev1");
    check(&good, "dev1").unwrap();

    assert!(matches!(check(&good, "Dev1"), Err(CertificateRefused::CommonName(_))));
    assert!(matches!(
        check(&certificate_of(&foreign, "dev1"), "dev1"),
        Err(CertificateRefused::Chain(_))
    ));
    let of_server = own.issue_server(&["dev1"], 10, start()).unwrap();
    assert!(matches!(check(&of_server, "dev1"), Err(CertificateRefused::Chain(_))));
    let nobody = authority_vouches_for(good.chain(), &[], &DeviceId::new("dev1").unwrap(), start());
    assert!(matches!(nobody, Err(CertificateRefused::Roots(_))));
}
