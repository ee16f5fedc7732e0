//! The kernel inside a `bzImage`: unpacked once at the build, or by every guest at every boot, which costs it a
//! second under emulation. QEMU enters an unpacked kernel directly where it has the PVH entry.

use crate::external::debian::Compression;

/// The compressed kernel of an x86 `bzImage`, how it is compressed, and its size when unpacked; nothing where it
/// is of another form.
pub(super) fn payload(image: &[u8]) -> Option<(Compression, &[u8], usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    let packed = image.get(start..start.checked_add(word(0x24c)?)?)?;
    let (packed, size) = packed.split_at_checked(packed.len().checked_sub(4)?)?;
    let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
    let how = match packed {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x02, 0x21, 0x4c, 0x18, ..] => Compression::Lz4,
        _ => return None,
    };
    Some((how, packed, size))
}

/// Whether a 64-bit ELF kernel says where to enter it directly: a note of `Xen` with type 18.
pub(super) fn boots_directly(elf: &[u8]) -> bool {
    notes(elf).is_some_and(|found| found)
}

fn notes(elf: &[u8]) -> Option<bool> {
    if elf.get(..5)? != b"\x7fELF\x02" {
        return Some(false);
    }
    let (table, each, count) = (long(elf, 0x20)?, half(elf, 0x36)?, half(elf, 0x38)?);
    for index in 0..count {
        let header = elf.get(table + index * each..)?;
        if word(header, 0)? == 4 {
            let (start, size) = (long(header, 8)?, long(header, 0x20)?);
            if has_entry(elf.get(start..start.checked_add(size)?)?) {
                return Some(true);
            }
        }
    }
    Some(false)
}

fn has_entry(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(size), Some(kind)) = (word(notes, 0), word(notes, 4), word(notes, 8)) {
        if kind == 18 && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let next = 12 + name.next_multiple_of(4) + size.next_multiple_of(4);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&8u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(packed.len() as u32 + 4).to_le_bytes());
        image.extend_from_slice(&[0; 8]);
        image.extend_from_slice(packed);
        image.extend_from_slice(&77u32.to_le_bytes());
        image
    }

    #[test]
    fn the_compressed_kernel_is_found_and_strange_images_are_not_touched() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 1, 2];
        assert_eq!(payload(&image(&zstd)), Some((Compression::Zstd, &zstd[..], 77)));
        assert_eq!(payload(&image(b"other")), None);
        assert_eq!(payload(&image(&zstd)[..1030]), None);
        assert_eq!(payload(b"MZ"), None);
    }

    #[test]
    fn only_a_kernel_with_a_direct_entry_boots_directly() {
        let mut elf = vec![0; 0x40 + 0x38];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = 1;
        elf[0x40] = 4;
        elf[0x48] = 0x78;
        elf[0x60] = 40;
        let note = |kind: u8| {
            let mut note = vec![4, 0, 0, 0, 4, 0, 0, 0, kind, 0, 0, 0];
            note.extend_from_slice(b"Xen\0....");
            note
        };
        let with = |kind: u8| [elf.clone(), note(6), note(kind)].concat();
        assert!(boots_directly(&with(18)));
        assert!(!boots_directly(&with(7)));
        assert!(!boots_directly(&elf[..0x50]));
        assert!(!boots_directly(b"MZ"));
    }
}
