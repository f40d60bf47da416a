//! Which errors mean that an object itself is at fault, so that an older one may do.

use super::absent;
use crate::error::{Error, ErrorKind};

/// Whether the object itself is at fault: its bytes are wrong, or the
/// storage reports that it cannot read them.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign)
        || says_rot(error)
        || absent::is_told(error)
}

/// Whether this is one of the codes by which file systems report rot. Linux: EIO; of XFS, ext4,
/// Btrfs and the layers below them EUCLEAN ("structure needs cleaning"), EBADMSG (checksum of
/// metadata), EILSEQ and ENODATA (medium), EREMOTEIO (target); of NFS ESTALE.
fn says_rot(error: &Error) -> bool {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error().map(Errno::from_raw_os_error) else { return false };
    #[cfg(target_os = "linux")]
    if matches!(code, Errno::UCLEAN | Errno::REMOTEIO | Errno::NODATA) {
        return true;
    }
    // A dangling link: its file was not fetched, or is lost.
    let leads_nowhere = error.kind() == ErrorKind::Io && matches!(code, Errno::NOENT | Errno::LOOP);
    leads_nowhere || matches!(code, Errno::IO | Errno::BADMSG | Errno::ILSEQ | Errno::STALE)
}
