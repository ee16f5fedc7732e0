//! The clocks inside an ext4 image, settled: mke2fs copies the time at which a file was unpacked into its inode,
//! so that two builds of the same files differ. Here every inode gets one time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Sets every time of every inode in use to `epoch`; a modification time before it stays. The image must be
/// without checksums of metadata, 64-bit and meta-group features, which is how `DebianTools::ext4` makes it.
pub(super) fn settle(image: &mut File, epoch: u32) -> io::Result<()> {
    let mut sb = [0; 1024];
    read_at(image, 1024, &mut sb)?;
    let size = u64::from(word(&sb, 0x58) & 0xffff);
    let (incompat, ro_compat) = (word(&sb, 0x60), word(&sb, 0x64));
    let known = word(&sb, 0x38) & 0xffff == 0xef53 && incompat & 0x2090 == 0 && ro_compat & 0x410 == 0;
    if !known || size < 160 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not the kind of ext4 that is expected"));
    }
    let block = 1024u64 << word(&sb, 0x18);
    let per_group = u64::from(word(&sb, 0x28));
    let groups = u64::from(word(&sb, 0x00)) / per_group;
    let mut descriptors = vec![0; (groups * 32) as usize];
    read_at(image, block * (u64::from(word(&sb, 0x14)) + 1), &mut descriptors)?;
    for group in descriptors.chunks_exact(32) {
        let table = u64::from(word(group, 8)) * block;
        let mut inodes = vec![0; (per_group * size) as usize];
        read_at(image, table, &mut inodes)?;
        let mut touched = false;
        for inode in inodes.chunks_exact_mut(size as usize) {
            touched |= settle_inode(inode, epoch);
        }
        if touched {
            image.seek(SeekFrom::Start(table))?;
            image.write_all(&inodes)?;
        }
    }
    Ok(())
}

fn settle_inode(inode: &mut [u8], epoch: u32) -> bool {
    if inode[..2] == [0, 0] {
        return false;
    }
    let modified = word(inode, 0x10).min(epoch);
    for (at, value) in [(0x08, epoch), (0x0c, epoch), (0x10, modified), (0x90, epoch)] {
        inode[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    // The nanoseconds of change, modification, access and creation.
    for at in [0x84, 0x88, 0x8c, 0x94] {
        inode[at..at + 4].fill(0);
    }
    true
}

fn read_at(image: &mut File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    image.seek(SeekFrom::Start(at))?;
    image.read_exact(buffer)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
