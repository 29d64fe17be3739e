//! Where requests come from, for what is counted by source: an IPv4 address, or 64 bits of IPv6, since whoever has one address there
//! has 2^64.

use std::net::IpAddr;

/// Where a request comes from, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// An address of version 4.
    V4(u32),
    /// The upper half of an address of version 6.
    V6(u64),
    /// Not known, or one beyond those that are.
    Other,
}

impl Source {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => Self::V4(address.to_bits()),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d].iter().fold(0, |bits, part| bits << 16 | u64::from(*part)))
            }
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_source_and_a_mapped_one_is_what_it_maps() {
        let six = |last| Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last)));
        let other = Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1)));
        let v4 = Some(IpAddr::V4(Ipv4Addr::from_bits(7)));
        let mapped = Some(IpAddr::V6(Ipv4Addr::from_bits(7).to_ipv6_mapped()));

        assert_eq!(Source::of(six(1)), Source::of(six(2)));
        assert_ne!(Source::of(six(1)), Source::of(other));
        assert_eq!(Source::of(mapped), Source::of(v4));
    }
}
