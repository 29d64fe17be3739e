//! The public area of a key of a TPM, as devices send it: `TPM2B_PUBLIC`.
//!
//! ```text
//! u16 size | u16 type | u16 nameAlg | u32 attributes | TPM2B authPolicy
//!   RSA 0x0001   symmetric | scheme | u16 keyBits | u32 exponent | TPM2B modulus
//!   ECC 0x0023   symmetric | scheme | u16 curve | kdf | TPM2B x | TPM2B y
//! symmetric: u16 AES | u16 keyBits | u16 CFB          scheme, kdf: u16 NULL
//! ```
//!
//! Only what an endorsement key and a storage key can be is read: keys that decrypt and are bound to their TPM. Everything must
//! be there, and nothing may follow. Source: TPM 2.0 Library, part 2, 8.3, 11, 12.2.

use thiserror::Error;

use super::crypto::Hash;

/// The most bytes of a public area: an RSA key of 4096 bits has 630.
const MAX_BYTES: usize = 1024;

const RSA: u16 = 0x0001;
const ECC: u16 = 0x0023;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;
const NULL: u16 = 0x0010;

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// Why bytes are not the public area of such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidPublicArea {
    /// There are too many.
    #[error("it has {0} bytes; a `TPM2B_PUBLIC` has at most {MAX_BYTES}")]
    TooLong(usize),
    /// There are fewer than a length in it says.
    #[error("it ends within `{0}`; send the whole `TPM2B_PUBLIC`")]
    Short(&'static str),
    /// There are more than the lengths in it say.
    #[error("{0} bytes follow the public area; send the `TPM2B_PUBLIC` alone")]
    Trailing(usize),
    /// A field has a value that is not supported.
    #[error("its `{field}` is {value:#06x}; {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u32,
        /// What it may hold.
        expected: &'static str,
    },
    /// Its attributes are not those of such a key.
    #[error(
        "its attributes are {0:#010x}; an endorsement key and a storage key have `fixedTPM`, `fixedParent`, `restricted` and \
         `decrypt`, and not `sign`"
    )]
    Attributes(u32),
    /// Its modulus or point can't be one.
    #[error("its `unique` can't be the {0}")]
    Unique(&'static str),
}

/// What is asymmetric of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asymmetric {
    /// Modulus, big-endian without zeros before it, and exponent.
    Rsa { modulus: Vec<u8>, exponent: u32 },
    /// A point, its coordinates of the curve's size.
    Ecc { curve: Curve, x: Vec<u8>, y: Vec<u8> },
}

/// An elliptic curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Bytes of a coordinate.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// The public area of a key that decrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    /// `TPM2B_PUBLIC`, as it came.
    wire: Vec<u8>,
    pub(super) name_hash: Hash,
    /// Bits of the AES key by which it protects.
    pub(super) symmetric_bits: u16,
    pub(super) key: Asymmetric,
}

impl PublicArea {
    /// Reads a `TPM2B_PUBLIC`.
    ///
    /// # Errors
    /// [`InvalidPublicArea`], naming the field.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidPublicArea> {
        if bytes.len() > MAX_BYTES {
            return Err(InvalidPublicArea::TooLong(bytes.len()));
        }
        let mut whole = Reader(bytes);
        let area = whole.sized("size")?;
        whole.end()?;
        let mut reader = Reader(area);
        let kind = reader.u16("type")?;
        let name_hash = name_hash(reader.u16("nameAlg")?)?;
        let attributes = reader.u32("objectAttributes")?;
        let wanted = FIXED_TPM | FIXED_PARENT | RESTRICTED | DECRYPT;
        if attributes & (wanted | SIGN) != wanted {
            return Err(InvalidPublicArea::Attributes(attributes));
        }
        reader.sized("authPolicy")?;
        let symmetric_bits = symmetric(&mut reader)?;
        null(&mut reader, "scheme")?;
        let key = match kind {
            RSA => rsa(&mut reader)?,
            ECC => ecc(&mut reader)?,
            value => {
                return Err(InvalidPublicArea::Field {
                    field: "type",
                    value: value.into(),
                    expected: "send an RSA (0x0001) or an ECC (0x0023) key",
                });
            }
        };
        reader.end()?;
        Ok(Self {
            wire: bytes.to_vec(),
            name_hash,
            symmetric_bits,
            key,
        })
    }

    /// The `TPM2B_PUBLIC`, as it was read.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// What the TPM calls the key: the algorithm, and the digest of its public area. Part 1, 16.
    pub(super) fn name(&self) -> Vec<u8> {
        let area = self.wire.get(2..).unwrap_or_default();
        self.name_hash.name_of(area)
    }
}

fn name_hash(algorithm: u16) -> Result<Hash, InvalidPublicArea> {
    Hash::of(algorithm).ok_or_else(|| InvalidPublicArea::Field {
        field: "nameAlg",
        value: algorithm.into(),
        expected: "send a key named by SHA-256 (0x000b), SHA-384 (0x000c) or SHA-512 (0x000d)",
    })
}

fn symmetric(reader: &mut Reader<'_>) -> Result<u16, InvalidPublicArea> {
    let algorithm = reader.u16("symmetric")?;
    let wrong = |field, value: u16| InvalidPublicArea::Field {
        field,
        value: value.into(),
        expected: "an endorsement key and a storage key protect by AES (0x0006) of 128 or 256 bits in CFB (0x0043)",
    };
    if algorithm != AES {
        return Err(wrong("symmetric.algorithm", algorithm));
    }
    let bits = reader.u16("symmetric.keyBits")?;
    if ![128, 256].contains(&bits) {
        return Err(wrong("symmetric.keyBits", bits));
    }
    match reader.u16("symmetric.mode")? {
        CFB => Ok(bits),
        mode => Err(wrong("symmetric.mode", mode)),
    }
}

fn null(reader: &mut Reader<'_>, field: &'static str) -> Result<(), InvalidPublicArea> {
    match reader.u16(field)? {
        NULL => Ok(()),
        value => Err(InvalidPublicArea::Field {
            field,
            value: value.into(),
            expected: "a restricted key that decrypts has none (0x0010)",
        }),
    }
}

fn rsa(reader: &mut Reader<'_>) -> Result<Asymmetric, InvalidPublicArea> {
    let bits = reader.u16("keyBits")?;
    if ![2048, 3072, 4096].contains(&bits) {
        return Err(InvalidPublicArea::Field {
            field: "keyBits",
            value: bits.into(),
            expected: "send a key of 2048, 3072 or 4096 bits",
        });
    }
    let exponent = match reader.u32("exponent")? {
        0 => 65_537,
        exponent => exponent,
    };
    if exponent < 65_537 || exponent % 2 == 0 {
        return Err(InvalidPublicArea::Field {
            field: "exponent",
            value: exponent,
            expected: "send 0, which is 65537, or an odd number above that",
        });
    }
    let modulus = reader.sized("unique")?;
    let is_whole = modulus.len() == usize::from(bits / 8)
        && modulus.first().is_some_and(|first| first & 0x80 != 0)
        && modulus.last().is_some_and(|last| last & 1 != 0);
    if !is_whole {
        return Err(InvalidPublicArea::Unique("modulus of a key of that many bits"));
    }
    Ok(Asymmetric::Rsa {
        modulus: modulus.to_vec(),
        exponent,
    })
}

fn ecc(reader: &mut Reader<'_>) -> Result<Asymmetric, InvalidPublicArea> {
    let curve = match reader.u16("curveID")? {
        0x0003 => Curve::P256,
        0x0004 => Curve::P384,
        value => {
            return Err(InvalidPublicArea::Field {
                field: "curveID",
                value: value.into(),
                expected: "send a key on NIST P-256 (0x0003) or P-384 (0x0004)",
            });
        }
    };
    null(reader, "kdf")?;
    let mut coordinate = || {
        let bytes = reader.sized("unique")?;
        let missing = curve.bytes().checked_sub(bytes.len());
        let missing = missing.ok_or(InvalidPublicArea::Unique("point of that curve"))?;
        Ok([&vec![0; missing][..], bytes].concat())
    };
    let (x, y) = (coordinate()?, coordinate()?);
    Ok(Asymmetric::Ecc { curve, x, y })
}

/// Reads big-endian numbers and sized buffers.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], InvalidPublicArea> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(InvalidPublicArea::Short(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, InvalidPublicArea> {
        let bytes = self.take(2, field)?;
        let bytes = bytes.try_into().map_err(|_| InvalidPublicArea::Short(field))?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, InvalidPublicArea> {
        let bytes = self.take(4, field)?;
        let bytes = bytes.try_into().map_err(|_| InvalidPublicArea::Short(field))?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn sized(&mut self, field: &'static str) -> Result<&'a [u8], InvalidPublicArea> {
        let length = self.u16(field)?;
        self.take(length.into(), field)
    }

    const fn end(&self) -> Result<(), InvalidPublicArea> {
        match self.0.len() {
            0 => Ok(()),
            count => Err(InvalidPublicArea::Trailing(count)),
        }
    }
}
