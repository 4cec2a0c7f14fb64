//! Messages of protobuf, as far as spans need them: written field by field into a buffer.

/// How a field is laid out.
const VARINT: u64 = 0;
const FIXED: u64 = 1;
const COUNTED: u64 = 2;

/// A number that takes as many bytes as it needs.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, value);
}

pub(super) fn fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | FIXED);
    out.extend(value.to_le_bytes());
}

/// Bytes or a string.
pub(super) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | COUNTED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within the message.
pub(super) fn message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, field << 3 | COUNTED);
    let begin = out.len();
    write(out);
    // How long it is stands before it, and is known only now.
    let mut length = Vec::with_capacity(4);
    varint(&mut length, (out.len() - begin) as u64);
    out.splice(begin..begin, length);
}

/// How many bytes the first field takes that is bytes, a string or a message.
pub(super) fn first(fields: &[u8]) -> usize {
    let (key, rest) = read_varint(fields);
    debug_assert_eq!(key & 7, COUNTED, "it begins with a field that says how long it is");
    let (length, rest) = read_varint(rest);
    let head = fields.len() - rest.len();
    head.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(fields.len())
}

fn read_varint(from: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for (place, byte) in from.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return (number, &from[place + 1..]);
        }
    }
    (number, &[])
}
