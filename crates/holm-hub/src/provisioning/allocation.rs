//! Which of several hubs a device is given.
//!
//! ```text
//! hashed      the hub with the highest score for this registration id:  -weight / ln(u),  u from a hash of both, in (0, 1)
//! geoLatency  as hashed: how near a device is to each hub is not known here
//! static      the first hub of the enrollment's list that is linked
//! ```
//!
//! Each hub's score depends on nothing but itself and the id (rendezvous hashing). So a hub that is added takes its share from
//! all others, one that goes leaves its devices to all others, and no other device gets another hub.

use super::enrollment::Allocation;
use crate::storage::LinkedHub;

/// Gives a hub to the registration of this id (in lower case); `None` where there is none to give. `named` are those that the
/// enrollment names; where it names none, all that take part count.
pub(super) fn allocate<'h>(
    allocation: Allocation,
    id: &str,
    named: &[String],
    hubs: &'h [LinkedHub],
) -> Option<&'h LinkedHub> {
    let find = |name: &String| hubs.iter().find(|hub| hub.host.eq_ignore_ascii_case(name));
    if allocation == Allocation::Static {
        return named.iter().find_map(find);
    }
    let candidates: Vec<&LinkedHub> = if named.is_empty() {
        hubs.iter().filter(|hub| hub.is_allocated).collect()
    } else {
        named.iter().filter_map(find).collect()
    };
    let best = |first: &&LinkedHub, second: &&LinkedHub| score(first, id).total_cmp(&score(second, id));
    candidates.into_iter().max_by(best)
}

fn score(hub: &LinkedHub, id: &str) -> f64 {
    let text = format!("{}\n{id}", hub.host.to_ascii_lowercase());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    // 52 bits, as many as a double holds; never 0 and never 1.
    let bits = digest
        .as_ref()
        .iter()
        .take(7)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte))
        >> 4;
    #[allow(clippy::cast_precision_loss, reason = "52 bits are exact in a double")]
    let uniform = (bits as f64 + 0.5) / (1_u64 << 52) as f64;
    -f64::from(hub.weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(host: &str, weight: u32) -> LinkedHub {
        LinkedHub {
            host: host.to_owned(),
            connection_string: None,
            authority: None,
            weight,
            is_allocated: true,
            etag: 1,
        }
    }

    fn given(number: u32, hubs: &[LinkedHub]) -> &str {
        &allocate(Allocation::Hashed, &format!("device-{number}"), &[], hubs)
            .unwrap()
            .host
    }

    #[test]
    fn hubs_get_devices_by_their_weight() {
        let hubs = [hub("a.test", 1), hub("b.test", 3)];

        let to_b = (0..4000).filter(|number| given(*number, &hubs) == "b.test").count();

        assert!((2850..3150).contains(&to_b), "{to_b} of 4000, and 3000 are due");
    }

    #[test]
    fn a_hub_that_is_added_takes_devices_and_moves_no_other() {
        let before = [hub("a.test", 1), hub("b.test", 1)];
        let after = [hub("a.test", 1), hub("c.test", 1), hub("b.test", 1)];

        let mut moved = 0;
        for number in 0..3000 {
            let (first, second) = (given(number, &before), given(number, &after));
            if first != second {
                assert_eq!(second, "c.test", "device-{number} went from {first}");
                moved += 1;
            }
        }

        assert!((850..1150).contains(&moved), "{moved} of 3000, and 1000 are due");
    }

    #[test]
    fn an_enrollment_chooses_among_those_it_names_and_static_takes_the_first() {
        let mut aside = hub("b.test", 1);
        aside.is_allocated = false;
        let hubs = [hub("a.test", 1), aside];
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of =
            |allocation, names: &[&str]| allocate(allocation, "d", &named(names), &hubs).map(|hub| hub.host.clone());

        assert_eq!(of(Allocation::Hashed, &[]).as_deref(), Some("a.test"));
        assert_eq!(of(Allocation::GeoLatency, &["B.test"]).as_deref(), Some("b.test"));
        assert_eq!(
            of(Allocation::Static, &["gone.test", "b.test", "a.test"]).as_deref(),
            Some("b.test")
        );
        assert_eq!(of(Allocation::Hashed, &["gone.test"]), None);
        assert_eq!(of(Allocation::Static, &[]), None);
    }
}
