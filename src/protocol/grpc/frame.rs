//! How gRPC sets messages apart: a byte that says whether the message is compressed, its length in
//! four bytes, and the message.

use bytes::Bytes;
use prost::Message;

/// Bytes before each message.
pub const PREFIX: usize = 5;

/// What stands before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// Its bytes.
    pub length: u32,
}

impl Prefix {
    /// The prefix at the beginning of `bytes`; nothing where they are too few, or where the first is
    /// neither 0 nor 1.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&[flag, a, b, c, d], _) = bytes.split_first_chunk::<PREFIX>()?;
        let length = u32::from_be_bytes([a, b, c, d]);
        (flag <= 1).then_some(Self { is_compressed: flag == 1, length })
    }

    /// As it is sent.
    #[must_use]
    pub fn write(self) -> [u8; PREFIX] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [u8::from(self.is_compressed), a, b, c, d]
    }

    /// The prefix of an uncompressed message. A message of 4 GiB and more cannot be sent: none of
    /// ours comes near, since outputs are bounded by what a plan can allocate for bounded inputs.
    pub(super) fn of(length: usize) -> Self {
        Self { is_compressed: false, length: u32::try_from(length).unwrap_or(u32::MAX) }
    }
}

/// A small message with its prefix.
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = Vec::with_capacity(PREFIX + length);
    buffer.extend_from_slice(&Prefix::of(length).write());
    message.encode_raw(&mut buffer);
    buffer.into()
}
