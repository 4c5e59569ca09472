//! What every command needs of the world: the report, the store that was named,
//! and what libraries must not fetch themselves (clock, chance, who we are).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use asl_bootstrap::{Domain, DomainId, carry, meta};
use asl_capture::inventory::{self, SystemPaths, unmounted_mountpoint};
use asl_store::log::LogEnd;
use asl_store::vfs::Vfs;
use asl_store::vfs::real::RealVfs;
use asl_store::{
    Context, Error as StoreError, Home, Owner, StoreHandle, StoreId, StoreWriter, WriteOptions,
};

use crate::args::Global;
use crate::error::{CliError, Result, causes_of};
use crate::report::{Report, Style};
use crate::root::{self, Member, Root};
use crate::text;

/// Files that are warned of one by one.
const PROBLEMS_SHOWN: usize = 3;

/// One run of a program.
pub struct Face {
    /// Where output goes.
    pub report: Report,
    /// Whether questions may be asked.
    pub may_ask: bool,
    place: Place,
}

/// What the user named.
enum Place {
    /// Nothing.
    Nowhere,
    /// A store.
    Store(PathBuf),
    /// A root, and its own domain's store once it was asked for.
    Root(PathBuf, OnceLock<PathBuf>),
    /// Both, in the environment.
    Both,
}

impl Place {
    fn of(global: &Global) -> Self {
        let of = |flag: &Option<PathBuf>, name| {
            let set = || std::env::var_os(name).map(PathBuf::from);
            flag.clone().or_else(set)
        };
        let is_named = |path: &PathBuf| !path.as_os_str().is_empty();
        // A flag counts more than the environment.
        let store = match global.root {
            Some(_) => None,
            None => of(&global.store, "ASL_STORE").filter(is_named),
        };
        let root = match global.store {
            Some(_) => None,
            None => of(&global.root, "ASL_ROOT").filter(is_named),
        };
        match (store, root) {
            (None, None) => Self::Nowhere,
            (Some(store), None) => Self::Store(store),
            (None, Some(root)) => Self::Root(root, OnceLock::new()),
            (Some(_), Some(_)) => Self::Both,
        }
    }
}

/// A store that is read, alone or with the others of a root.
pub struct Reader {
    /// Its domain, where it is one of a root's.
    pub domain: Option<DomainId>,
    /// Where it is.
    pub path: PathBuf,
    /// The store.
    pub store: StoreHandle,
}

impl Reader {
    /// Its domain as results show it.
    pub fn domain_text(&self) -> Option<String> {
        self.domain.map(|domain| domain.to_string())
    }
}

impl Face {
    /// The face that the global options describe.
    pub fn new(global: &Global) -> Self {
        let style = match (global.events, global.json) {
            (true, _) => Style::Events,
            (false, true) => Style::Json,
            (false, false) => Style::Human,
        };
        Self {
            report: Report::new(style, global.quiet, global.verbose),
            may_ask: !global.no_input,
            place: Place::of(global),
        }
    }

    /// The same face, turned to a store that the program found.
    pub fn at(&self, store: &Path) -> Self {
        Self {
            report: self.report,
            may_ask: self.may_ask,
            place: Place::Store(store.to_owned()),
        }
    }

    /// The store's path as the user named it; of a root, that of its own domain's.
    pub fn store_path(&self) -> Result<&Path> {
        match &self.place {
            Place::Store(path) => Ok(path),
            Place::Root(root, own) => {
                if let Some(path) = own.get() {
                    return Ok(path);
                }
                let path = Root::read(root)?.own()?.path.clone();
                Ok(own.get_or_init(|| path))
            }
            Place::Nowhere => Err(CliError::usage("no store was named").hint(
                "add --store PATH to the command, or set it for all commands: export ASL_STORE=PATH",
            )),
            Place::Both => Err(CliError::usage(
                "the environment names a store (ASL_STORE) and a root (ASL_ROOT)",
            )
            .hint("forget one of them: unset ASL_ROOT")),
        }
    }

    /// The root that was named.
    pub fn root_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Root(root, _) => Some(root),
            _ => None,
        }
    }

    /// The stores to be searched: the one that was named, or all of a root, its own domain's first.
    pub fn readers(&self) -> Result<Vec<Reader>> {
        let Place::Root(path, _) = &self.place else {
            let (path, store) = self.reader()?;
            return Ok(vec![Reader {
                domain: None,
                path: path.to_owned(),
                store,
            }]);
        };
        let root = Root::read(path)?;
        for stranger in &root.strangers {
            self.report.warn(&format!(
                "{}/{stranger} is no directory that is called like a domain; it is passed over",
                root::DOMAINS
            ));
        }
        let mut readers = Vec::new();
        for member in &root.members {
            match root::open(member) {
                Ok(store) => {
                    self.tell_of(&member.path, &store);
                    readers.push(Reader {
                        domain: Some(member.domain),
                        path: member.path.clone(),
                        store,
                    });
                }
                // One that cannot be read must not hide the others.
                Err(error) if root.members.len() > 1 => {
                    self.report.warn(&error.in_one_line());
                }
                Err(error) => return Err(error),
            }
        }
        if readers.is_empty() {
            return Err(
                CliError::new(format!("no domain below {} can be read", text::path(path))).hint(
                    format!("see: ls {}", text::shell_path(&path.join(root::DOMAINS))),
                ),
            );
        }
        Ok(readers)
    }

    /// The domains of the root that was named whose keys are not here; none where a store was named.
    pub fn foreign(&self) -> Result<Vec<Member>> {
        let Some(path) = self.root_path() else {
            return Ok(Vec::new());
        };
        let mut members = Root::read(path)?.members;
        members.retain(|member| !member.own);
        Ok(members)
    }

    /// The files of the store that was named.
    pub fn store_files(&self) -> Result<(&Path, Arc<dyn Vfs>)> {
        let path = self.store_path()?;
        match RealVfs::open(path) {
            Ok(vfs) => Ok((path, Arc::new(vfs))),
            Err(error) => Err(self.no_directory(path, &error)),
        }
    }

    fn no_directory(&self, path: &Path, error: &std::io::Error) -> CliError {
        let failed = CliError::of_io("open the store at", path, error);
        let place = text::shell_path(path);
        match error.kind() {
            std::io::ErrorKind::NotADirectory => {
                failed.hint("a store is a directory; name that, or one on another disk")
            }
            std::io::ErrorKind::NotFound => failed.hint(match unmounted(path) {
                Some(hint) => hint,
                None => format!("check the path, or make a store there: asl store init {place}"),
            }),
            _ => failed,
        }
    }

    /// Opens the named store for reading.
    pub fn reader(&self) -> Result<(&Path, StoreHandle)> {
        let (path, vfs) = self.store_files()?;
        let handle = StoreHandle::open_at_home(vfs, home_of(path).as_ref())
            .map_err(|error| open_error(path, &error))?;
        self.tell_of(path, &handle);
        Ok((path, handle))
    }

    /// Says what of a store cannot be seen.
    fn tell_of(&self, path: &Path, handle: &StoreHandle) {
        match handle.log_end() {
            LogEnd::Clean | LogEnd::Torn { .. } => {}
            LogEnd::Damaged { what } => self.report.warn(&format!(
                "the log is damaged ({what}); what was stored after that place is not shown"
            )),
            LogEnd::Lost { remembered } => self.report.warn(&format!(
                "the log once had {} and lacks the last; what only those told is not shown",
                text::count(remembered.0, "record")
            )),
        }
        let problems = handle.problems();
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            self.report.warn(&format!(
                "{}: {}; what only this file names is not found",
                problem.path, problem.what
            ));
        }
        if let Some(more @ 1..) = problems.len().checked_sub(PROBLEMS_SHOWN) {
            self.report.warn(&format!("so are {more} more files"));
        }
        if !problems.is_empty() {
            let place = text::shell_path(path);
            self.report.note(&format!(
                "to see what is damaged: asl store verify --store {place}"
            ));
        }
    }

    /// Opens the named store for writing and tells what had to be mended.
    pub fn writer(&self, options: WriteOptions) -> Result<(&Path, StoreWriter)> {
        let (path, vfs) = self.store_files()?;
        let mut writer = StoreWriter::open(vfs, context_at(path)?, options)
            .map_err(|error| open_error(path, &error))?;
        let found = writer.recovery();
        if let Some(of) = found.born {
            self.report.note(&birth(path, &of));
        }
        if found.salvaged_blocks > 0 {
            self.report.note(&format!(
                "recovered what an interrupted program had left: {} with {}",
                text::count(found.salvaged_blocks, "block"),
                text::count(found.salvaged_artifacts, "artifact"),
            ));
        }
        if found.relogged_blocks > 0 || found.torn_log_bytes > 0 {
            self.report.detail(&format!(
                "finished what a crash had interrupted: {} put into the log, {} of a torn record \
                 left behind",
                text::count(found.relogged_blocks, "block"),
                text::count(found.torn_log_bytes, "byte")
            ));
        }
        for foreign in &found.foreign {
            self.report.warn(&format!("left alone: {foreign}"));
        }
        self.carry(path, &mut writer);
        Ok((path, writer))
    }

    /// Says again in the log that is written here what the logs of other instances say of the domain. Whoever writes can do without
    /// it, so a failure is only told.
    fn carry(&self, path: &Path, writer: &mut StoreWriter) {
        let place = text::shell_path(path);
        match carry::carry(writer) {
            Ok(carried) if carried.disagree => self.report.warn(&format!(
                "the instances of this store belong to different domains; what is written here \
                 belongs to none of them; see: asl domain verify --store {place}"
            )),
            Ok(carried) if carried.any() => self.report.detail(&format!(
                "took over {} and {} of the domain from where the store was written before",
                text::count(carried.manifests, "manifest"),
                text::count(carried.links, "link"),
            )),
            Ok(_) => {}
            Err(error) => self.report.warn(&format!(
                "the domain could not be taken over to what is written here: {}; see: asl domain \
                 verify --store {place}",
                causes_of(&error).join(": ")
            )),
        }
    }

    /// Makes the files under `meta/` again where they are not as the log says. They are for people, so a failure is only told.
    fn keep_meta(&self, path: &Path, writer: &StoreWriter) {
        let handle = writer.handle();
        let vfs = &**handle.vfs();
        let place = text::shell_path(path);
        let made = Domain::read(handle).and_then(|found| match found {
            // The manifest in force may be one that nobody can read.
            Some(domain) if !domain.is_blind() => meta::materialise(vfs, handle, &domain, None),
            _ => Ok(Vec::new()),
        });
        match made {
            Ok(differences) => {
                let foreign =
                    |difference: &&meta::Difference| difference.found == meta::Found::Foreign;
                for difference in differences.iter().filter(foreign) {
                    self.report.warn(&format!(
                        "{} was not as the log says; it was made again",
                        difference.path
                    ));
                }
            }
            Err(error) => self.report.warn(&format!(
                "what meta/ says of the domain could not be made again: {}; see: asl domain verify \
                 --store {place}",
                causes_of(&error).join(": ")
            )),
        }
    }

    /// Ends writing.
    pub fn finish(&self, path: &Path, writer: StoreWriter) -> Result<()> {
        self.keep_meta(path, &writer);
        writer.finish().map_err(|error| {
            CliError::of_store(
                &format!("finish writing to the store {}", text::path(path)),
                path,
                &error,
            )
        })?;
        Ok(())
    }
}

/// Refuses to write a file of the user's into the store: there it would be in the way.
pub fn outside_store(store: &Path, file: &Path) -> Result<()> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let inside = match (fs::canonicalize(store), fs::canonicalize(dir)) {
        (Ok(store), Ok(dir)) => dir.starts_with(store),
        _ => false,
    };
    if inside {
        return Err(CliError::usage(format!(
            "{} lies in the store {}",
            text::path(file),
            text::path(store)
        ))
        .hint("name a file outside of it"));
    }
    Ok(())
}

fn open_error(path: &Path, error: &StoreError) -> CliError {
    let action = format!("open the store {}", text::path(path));
    let failed = CliError::of_store(&action, path, error);
    match (error, unmounted(path)) {
        (StoreError::NotAStore, Some(hint)) => failed.hint(hint),
        _ => failed,
    }
}

/// What to do if `path` is where a disk should be mounted and none is.
fn unmounted(path: &Path) -> Option<String> {
    let place = unmounted_mountpoint(&SystemPaths::default(), path)?;
    let place = text::shell_path(&place);
    Some(format!(
        "nothing is mounted on {place}; mount the disk that holds the store: mount /dev/DISK {place}"
    ))
}

/// What is said when a store is first written to in another place than before.
pub fn birth(path: &Path, of: &StoreId) -> String {
    format!(
        "{} is a copy: the store {of} was written in another place. It stays as it is; what is \
         written here goes beside it, and both are shown as one. When they are to meet again: asl \
         store sync OTHER --store {}",
        text::path(path),
        text::shell_path(path)
    )
}

/// The place that a store at `path` is written in, if it has a name: the filesystem's UUID and the directory's inode number.
pub fn home_of(path: &Path) -> Option<Home> {
    inventory::place(&SystemPaths::default(), path).and_then(Home::new)
}

/// Clock, chance, who we are and where, for a writer of the store at `path`.
pub fn context_at(path: &Path) -> Result<Context> {
    Ok(Context {
        home: home_of(path),
        ..context()?
    })
}

/// Clock, chance and who we are, for a writer in a place that is not known.
pub fn context() -> Result<Context> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        CliError::new("the system has no random numbers").caused_by(&std::io::Error::from(error))
    })?;
    Ok(Context {
        owner: owner(),
        holder: holder(),
        seed,
        home: None,
        now: Arc::new(now),
    })
}

/// Unix time in nanoseconds.
pub fn now() -> i64 {
    let since = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()),
        // A clock without a battery may stand before 1970.
        Err(before) => i64::try_from(before.duration().as_nanos()).map(|ns| -ns),
    };
    since.unwrap_or(i64::MAX)
}

/// This process, so that another one can tell later that it is gone.
fn owner() -> Owner {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Owner {
        boot_id: boot_id(&boot).unwrap_or_default(),
        pid: std::process::id(),
        start_time: start_time(&stat).unwrap_or_default(),
    }
}

fn boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    asl_store::id::unhex(&digits)
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot (proc_pid_stat(5)). The second
/// field is the program's name in parentheses and may hold anything, spaces and
/// parentheses included.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// For people who find the store locked.
fn holder() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let program = std::env::args_os()
        .next()
        .and_then(|path| {
            Path::new(&path)
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "asl".to_owned());
    format!(
        "process {} ({}) on {} since {}",
        std::process::id(),
        text::visible(&program),
        text::visible(&host),
        text::time(now())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let rest = (3..=52)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        for name in ["asl", "a b", "x) R 1 (y"] {
            let stat = format!("17 ({name}) {rest}");
            assert_eq!(start_time(&stat), Some(22));
        }
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn this_process_is_known() {
        let owner = owner();
        assert_eq!(owner.pid, std::process::id());
        assert!(owner.start_time > 0);
        assert_ne!(owner.boot_id, [0; 16]);
    }

    #[test]
    fn boot_ids_parse() {
        let text = "5be0ff75-2c0c-4a8c-8ee4-5ce0b2b9ba10\n";
        assert_eq!(boot_id(text).unwrap()[..2], [0x5b, 0xe0]);
        assert_eq!(boot_id(""), None);
    }
}
