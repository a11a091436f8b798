//! gRPC as far as a proxy reads its bodies: messages counted by their five-byte heads.
//! <https://github.com/grpc/grpc/blob/v1.70.0/doc/PROTOCOL-HTTP2.md>

/// Counts length-prefixed messages in a stream cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: usize,
    length: u32,
    rest: u32,
}

const HEAD_BYTES: usize = 5;

impl Messages {
    /// How many messages end in these bytes.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut count = 0;
        while let Some((&byte, after)) = bytes.split_first() {
            if self.head < HEAD_BYTES {
                // The first byte is the compression flag.
                self.length = if self.head == 0 { 0 } else { self.length << 8 | u32::from(byte) };
                self.head += 1;
                bytes = after;
                self.rest = self.length;
            } else {
                let taken = bytes.len().min(self.rest as usize);
                self.rest -= taken as u32;
                bytes = &bytes[taken..];
            }
            if self.head == HEAD_BYTES && self.rest == 0 {
                count += 1;
                self.head = 0;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_the_stream_is_cut() {
        let stream: Vec<u8> = [3_u32, 0, 300]
            .iter()
            .flat_map(|&length| {
                let mut message = vec![0];
                message.extend(length.to_be_bytes());
                message.extend(std::iter::repeat_n(7, length as usize));
                message
            })
            .collect();
        for piece in 1..stream.len() {
            let mut messages = Messages::default();
            let count: u64 = stream.chunks(piece).map(|bytes| messages.count(bytes)).sum();
            assert_eq!(count, 3, "pieces of {piece}");
        }
    }
}
