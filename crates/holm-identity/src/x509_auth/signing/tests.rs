//! Chains whose links say of themselves that they may not be links.

use holm_model::DeviceId;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::x509_auth::authority_vouches_for;

const DAY: i64 = 86_400;

fn start() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

/// A certificate with what it takes to sign others.
struct Link {
    der: CertificateDer<'static>,
    params: CertificateParams,
    key: KeyPair,
}

impl Link {
    /// Made by `by`, or by itself; valid for `days` from the start.
    fn new(name: &str, is_ca: IsCa, usages: &[KeyUsagePurpose], days: i64, by: Option<&Self>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        params.key_usages = usages.to_vec();
        let at = |days: i64| rcgen::date_time_ymd(2027, 1, 14) + Duration::from_secs((days * DAY).unsigned_abs());
        (params.not_before, params.not_after) = (at(0), at(days + 1));
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            None => params.self_signed(&key).unwrap(),
            Some(by) => params
                .signed_by(&key, &Issuer::from_params(&by.params, &by.key))
                .unwrap(),
        };
        Self {
            der: certificate.der().clone(),
            params,
            key,
        }
    }

    fn authority(name: &str, below: BasicConstraints, by: Option<&Self>) -> Self {
        Self::new(name, IsCa::Ca(below), &[KeyUsagePurpose::KeyCertSign], 365, by)
    }

    fn leaf(by: &Self) -> CertificateDer<'static> {
        let usages = [KeyUsagePurpose::DigitalSignature];
        Self::new("d1", IsCa::ExplicitNoCa, &usages, 365, Some(by)).der
    }
}

fn verdict(of: &Link, chain: &[CertificateDer<'_>], days: i64) -> Result<(), CertificateRefused> {
    let signing = SigningCertificate::new(&of.der).unwrap();
    signing
        .vouches_for(chain, start().plus_millis(days * DAY * 1000))
        .map(drop)
}

#[test]
fn a_path_length_of_the_authority_bounds_the_intermediates_below_it_in_whatever_order_they_are_shown() {
    for (length, most) in [
        (BasicConstraints::Constrained(0), 0),
        (BasicConstraints::Constrained(1), 1),
        (BasicConstraints::Constrained(2), 2),
        (BasicConstraints::Unconstrained, 3),
    ] {
        let root = Link::authority("root", length, None);
        let mut line = vec![Link::authority("line 1", BasicConstraints::Unconstrained, Some(&root))];
        for number in 2..=3 {
            let next = Link::authority(&format!("line {number}"), BasicConstraints::Unconstrained, line.last());
            line.push(next);
        }

        for count in 0_usize..=3 {
            let by = count.checked_sub(1).map_or(&root, |last| &line[last]);
            let leaf = [Link::leaf(by)];
            let above = || line[..count].iter().map(|link| link.der.clone());
            let upwards: Vec<_> = leaf
                .iter()
                .cloned()
                .chain(above().rev())
                .chain([root.der.clone()])
                .collect();
            let mixed: Vec<_> = leaf.iter().cloned().chain(above()).collect();

            for chain in [upwards, mixed] {
                let outcome = verdict(&root, &chain, 0);
                match outcome {
                    Ok(()) => assert!(count <= most, "{count} of at most {most}"),
                    Err(CertificateRefused::Constraints(_)) => assert!(count > most, "{count} of at most {most}"),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn a_path_length_of_an_intermediate_bounds_those_below_it() {
    let root = Link::authority("root", BasicConstraints::Unconstrained, None);
    let narrow = Link::authority("narrow", BasicConstraints::Constrained(0), Some(&root));
    let below = Link::authority("below", BasicConstraints::Unconstrained, Some(&narrow));

    let direct = verdict(&root, &[Link::leaf(&narrow), narrow.der.clone()], 0);
    let too_deep = verdict(&root, &[Link::leaf(&below), below.der.clone(), narrow.der.clone()], 0);

    assert!(direct.is_ok(), "{direct:?}");
    assert!(matches!(too_deep, Err(CertificateRefused::Chain(_))), "{too_deep:?}");
}

#[test]
fn an_intermediate_that_is_no_authority_or_may_not_sign_certificates_is_none() {
    let root = Link::authority("root", BasicConstraints::Unconstrained, None);
    let sign = [KeyUsagePurpose::KeyCertSign];
    let no_authority = Link::new("plain", IsCa::ExplicitNoCa, &sign, 365, Some(&root));
    let says_nothing = Link::new("silent", IsCa::NoCa, &[], 365, Some(&root));
    let authority = IsCa::Ca(BasicConstraints::Unconstrained);
    let other_use = Link::new("other", authority, &[KeyUsagePurpose::CrlSign], 365, Some(&root));
    let any_use = Link::new("any", authority, &[], 365, Some(&root));
    let by = |link: &Link| verdict(&root, &[Link::leaf(link), link.der.clone()], 0);

    let (plain, silent, other, any) = (by(&no_authority), by(&says_nothing), by(&other_use), by(&any_use));

    for refused in [plain, silent] {
        assert!(matches!(refused, Err(CertificateRefused::Chain(_))), "{refused:?}");
    }
    assert!(matches!(other, Err(CertificateRefused::Constraints(_))), "{other:?}");
    assert!(any.is_ok(), "no use is named, so any is allowed: {any:?}");
    assert!(!CertificateDetails::read(&other_use.der).unwrap().may_sign);
}

#[test]
fn an_intermediate_or_an_authority_that_has_ended_vouches_for_nobody() {
    let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
    let sign = [KeyUsagePurpose::KeyCertSign];
    let root = Link::new("root", authority(), &sign, 100, None);
    let short = Link::new("short", authority(), &sign, 10, Some(&root));
    let (by_short, by_root) = ([Link::leaf(&short), short.der.clone()], [Link::leaf(&root)]);

    let at = |days| (verdict(&root, &by_short, days), verdict(&root, &by_root, days));
    let (first, later, last) = (at(0), at(12), at(102));

    assert!(first.0.is_ok() && first.1.is_ok(), "{first:?}");
    assert!(
        matches!(later, (Err(CertificateRefused::Chain(_)), Ok(()))),
        "{later:?}"
    );
    assert!(
        matches!(
            last,
            (
                Err(CertificateRefused::Chain(_)),
                Err(CertificateRefused::AuthorityDates { .. })
            )
        ),
        "{last:?}"
    );
}

#[test]
fn of_several_authorities_the_one_that_a_chain_leads_to_vouches_within_what_it_says_of_itself() {
    let free = || IsCa::Ca(BasicConstraints::Unconstrained);
    let sign = [KeyUsagePurpose::KeyCertSign];
    let good = Link::authority("good", BasicConstraints::Unconstrained, None);
    let narrow = Link::authority("narrow", BasicConstraints::Constrained(0), None);
    let below = Link::authority("below", BasicConstraints::Unconstrained, Some(&narrow));
    let unmarked = Link::new("unmarked", IsCa::ExplicitNoCa, &[], 365, None);
    let other_use = Link::new("other", free(), &[KeyUsagePurpose::CrlSign], 365, None);
    let ended = Link::new("ended", free(), &sign, 10, None);
    let stranger = Link::authority("stranger", BasicConstraints::Unconstrained, None);
    let trusted =
        [&unmarked, &other_use, &ended, &narrow, &good].map(|link| SigningCertificate::new(&link.der).unwrap());
    let device = DeviceId::new("d1").unwrap();
    let judge = |chain: &[CertificateDer<'_>]| {
        let now = start().plus_millis(20 * DAY * 1000);
        authority_vouches_for(chain, &trusted, &device, now)
    };

    let by_good = judge(&[Link::leaf(&good)]);
    let by_narrow = judge(&[Link::leaf(&narrow)]);
    let too_deep = judge(&[Link::leaf(&below), below.der.clone()]);
    let by_unmarked = judge(&[Link::leaf(&unmarked)]);
    let by_other_use = judge(&[Link::leaf(&other_use)]);
    let by_ended = judge(&[Link::leaf(&ended)]);
    let by_stranger = judge(&[Link::leaf(&stranger)]);

    assert!(by_good.is_ok() && by_narrow.is_ok(), "{by_good:?} {by_narrow:?}");
    assert!(
        matches!(too_deep, Err(CertificateRefused::Constraints(_))),
        "{too_deep:?}"
    );
    for (refused, wanted) in [(by_unmarked, "unmarked"), (by_other_use, "other")] {
        assert!(
            matches!(&refused, Err(CertificateRefused::NoAuthority { name }) if name == wanted),
            "{refused:?}"
        );
    }
    assert!(
        matches!(&by_ended, Err(CertificateRefused::AuthorityDates { name, .. }) if name == "ended"),
        "{by_ended:?}"
    );
    assert!(
        matches!(by_stranger, Err(CertificateRefused::Chain(_))),
        "{by_stranger:?}"
    );
}
