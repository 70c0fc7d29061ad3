//! Names of users and groups, resolved with the files of an image.

use crate::{Error, Result, Rootfs, User, inside};
use rustix::fs::{FileType, Mode, OFlags};
use std::io::Read;

/// Bytes of a user database that are looked at; an image may hold anything.
const DATABASE_BYTES_MAX: u64 = 4 << 20;

/// The greatest user or group. To the kernel the last number of 32 bits means "as it is": a user of that number would stay root.
const ID_MAX: u32 = i32::MAX as u32;

/// What `user[:group]` means inside an image: numbers as they are, names by its `/etc/passwd` and `/etc/group`.
///
/// An empty string is root. Without a group it is the one of `/etc/passwd`, or 0 for a number that is not there.
/// Additional groups are those that list the user in `/etc/group`. Errors name the user or group that is not there.
pub fn resolve(rootfs: &Rootfs, user: &str) -> Result<User> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(rootfs, "etc/passwd")?;
    let groups = read(rootfs, "etc/group")?;
    let number = user.parse::<u32>().ok();
    let known = passwd.lines().filter_map(Account::parse).find(|a| a.name == user || Some(a.uid) == number);
    let uid = match (&known, number) {
        (_, Some(uid)) => uid,
        (Some(account), None) => account.uid,
        (None, None) => {
            return Err(Error::Start(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let gid =
        match group {
            None | Some("") => known.as_ref().map_or(0, |a| a.gid),
            Some(group) => match group.parse::<u32>() {
                Ok(gid) => gid,
                Err(_) => group_entries(&groups).find(|(name, ..)| *name == group).map(|(_, gid, _)| gid).ok_or_else(
                    || Error::Start(format!("unable to find group {group}: no matching entries in group file")),
                )?,
            },
        };
    let additional_gids: Vec<u32> = match &known {
        Some(account) => group_entries(&groups)
            .filter(|(_, id, members)| *id != gid && members.split(',').any(|m| m == account.name))
            .map(|(_, id, _)| id)
            .collect(),
        None => vec![],
    };
    if [uid, gid].iter().chain(&additional_gids).any(|id| *id > ID_MAX) {
        return Err(Error::Start(format!("uids and gids must be in range 0-{ID_MAX}")));
    }
    Ok(User { uid, gid, additional_gids })
}

/// The home directory of a user, as `/etc/passwd` of the image says.
pub fn home(rootfs: &Rootfs, uid: u32) -> Option<String> {
    let passwd = read(rootfs, "etc/passwd").ok()?;
    passwd.lines().filter_map(Account::parse).find(|a| a.uid == uid).map(|a| a.home.to_string())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Account<'_> {
    fn parse(line: &str) -> Option<Account<'_>> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    }
}

/// Name, number and members of each group.
fn group_entries(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// A file of the image: the topmost layer that has it decides. Empty when there is none.
fn read(rootfs: &Rootfs, path: &str) -> Result<String> {
    for layer in rootfs.upper.iter().chain(&rootfs.lower) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(layer, flags, Mode::empty()) else {
            // The writable layer need not exist yet.
            continue;
        };
        let Ok(found) = inside::open(&root, path, OFlags::PATH) else {
            if is_opaque(&root, inside::split(path).0) {
                break;
            }
            continue;
        };
        let stat = rustix::fs::fstat(&found).map_err(|e| Error::file(layer, e))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            // A whiteout, or something that is no database: either way there are no users.
            break;
        }
        let file = inside::open(&root, path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(|e| Error::file(layer.join(path), e))?;
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(DATABASE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::file(layer.join(path), e))?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(String::new())
}

/// Whether a layer's directory hides that of the layers below.
fn is_opaque(root: &std::os::fd::OwnedFd, directory: &str) -> bool {
    let Ok(directory) = inside::open(root, directory, OFlags::RDONLY | OFlags::DIRECTORY) else { return false };
    let mut value = [0u8; 4];
    matches!(rustix::fs::fgetxattr(&directory, "trusted.overlay.opaque", &mut value), Ok(1)) && value[0] == b'y'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn users_and_groups_of_an_image() {
        let base = std::env::temp_dir().join(format!("corten-user-{}", std::process::id()));
        let (top, bottom) = (base.join("top"), base.join("bottom"));
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::create_dir_all(bottom.join("etc")).unwrap();
        fs::write(bottom.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\n")
            .unwrap();
        // A link that would leave the image on the host stays inside.
        std::os::unix::fs::symlink("/etc/group.real", top.join("etc/group")).unwrap();
        fs::write(top.join("etc/group.real"), "root:x:0:\nwww:x:102:\nlog:x:4:web,root\n").unwrap();
        let rootfs = Rootfs { lower: vec![top, bottom], ..Rootfs::default() };
        let user = |uid, gid, more: &[u32]| User { uid, gid, additional_gids: more.to_vec() };
        assert_eq!(resolve(&rootfs, "").unwrap(), user(0, 0, &[4]));
        assert_eq!(resolve(&rootfs, "web").unwrap(), user(101, 102, &[4]));
        assert_eq!(resolve(&rootfs, "101").unwrap(), user(101, 102, &[4]));
        assert_eq!(resolve(&rootfs, "1000").unwrap(), user(1000, 0, &[]));
        assert_eq!(resolve(&rootfs, "1000:www").unwrap(), user(1000, 102, &[]));
        assert_eq!(resolve(&rootfs, "web:7").unwrap(), user(101, 7, &[4]));
        let message = resolve(&rootfs, "nobody").unwrap_err().to_string();
        assert_eq!(message, "unable to find user nobody: no matching entries in passwd file");
        // CVE-2024-40635: what is no number of 32 bits is not cut down to one; CVE-2016-3697: a number is never a name.
        for name in
            ["4294967296", "18446744073709551616", "-1", "0x0", "1000:4294967296", "4294967295", "1000:4294967295"]
        {
            assert!(resolve(&rootfs, name).is_err(), "{name}");
        }
        fs::write(rootfs.lower[0].join("etc/passwd"), "evil:x:4294967295:0::/:/bin/sh\n").unwrap();
        assert!(resolve(&rootfs, "evil").is_err());
        fs::write(rootfs.lower[0].join("etc/passwd"), "1000:x:0:0::/:/bin/sh\n").unwrap();
        assert_eq!(resolve(&rootfs, "1000").unwrap().uid, 1000);
        fs::remove_file(rootfs.lower[0].join("etc/passwd")).unwrap();
        // CVE-2024-9676: a database that is no file is not waited for, one that leads to the host is not read.
        std::os::unix::fs::symlink("/proc/self/environ", rootfs.lower[0].join("etc/passwd")).unwrap();
        assert!(resolve(&rootfs, "web").is_ok_and(|u| u.uid == 101) || resolve(&rootfs, "web").is_err());
        fs::remove_file(rootfs.lower[0].join("etc/passwd")).unwrap();
        assert_eq!(home(&rootfs, 101).as_deref(), Some("/srv"));
        fs::remove_dir_all(base).unwrap();
    }
}
