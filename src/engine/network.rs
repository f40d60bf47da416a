//! File systems whose files other machines may change unseen: one table.
//!
//! If another machine truncates a mapped file, or the server disappears, the next touch of the lost
//! pages ends this process with `SIGBUS`; a read returns an error instead. On these file systems
//! files are read even if mapping was requested.

/// Names by the `f_type` of `statfs`. The kernel's `linux/magic.h` has NFS, CIFS, SMB2, SMB, 9p,
/// FUSE, Ceph, both AFS, Coda, NCP and OCFS2; OrangeFS is from its own sources
/// (`PVFS2_SUPER_MAGIC`); the others are those that coreutils' `stat` calls remote. FUSE is listed
/// as a whole: the file system behind it (sshfs, s3fs, gcsfuse, a local disk) cannot be determined.
const NETWORK: [(u32, &str); 25] = [
    (0x0000_6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0000_517B, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x0BD0_0BD0, "Lustre"),
    (0x00C3_6400, "Ceph"),
    (0x4750_4653, "GPFS"),
    (0x5346_414F, "OpenAFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0000_564C, "NCP"),
    (0x1983_0326, "BeeGFS"),
    (0xAAD7_AAEA, "PanFS"),
    (0x2003_0528, "OrangeFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x6163_6673, "ACFS"),
    (0x0131_11A8, "IBRIX"),
    (0xBEEF_DEAD, "StorNext"),
    (0xA501_FCF5, "VxFS"),
    (0x786F_4256, "VirtualBox's shared folder"),
    (0xBACB_ACBC, "VMware's shared folder"),
    (0x7C7C_6673, "Parallels' shared folder"),
];

/// The name of a network file system by the `f_type` of `statfs`, or None for any other. Files
/// there are read where mapping was asked for.
///
/// ```
/// use tensorkeep::engine::network_file_system;
///
/// let (nfs, ext4) = (0x6969, 0xEF53);
/// assert_eq!((network_file_system(nfs), network_file_system(ext4)), (Some("NFS"), None));
/// ```
pub fn network_file_system(f_type: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(magic, _)| *magic == f_type).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn local_disks_are_mapped_and_what_is_across_a_wire_is_not() {
        let (ext4, xfs, btrfs, tmpfs, overlay, zfs) =
            (0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1);
        for local in [ext4, xfs, btrfs, tmpfs, overlay, zfs] {
            assert_eq!(network_file_system(local), None, "{local:x}");
        }
        assert_eq!(
            [0x6969, 0x6573_5546, 0xFF53_4D42].map(network_file_system),
            [Some("NFS"), Some("FUSE"), Some("CIFS")]
        );
    }

    #[test]
    fn each_file_system_stands_once_in_the_table() {
        let magics: BTreeSet<u32> = NETWORK.iter().map(|(magic, _)| *magic).collect();
        let names: BTreeSet<&str> = NETWORK.iter().map(|(_, name)| *name).collect();
        assert_eq!((magics.len(), names.len()), (NETWORK.len(), NETWORK.len()));
    }
}
