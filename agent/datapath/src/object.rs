//! The kernel programs: loaded with aya, attached by links, and pinned so that they outlive the agent.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::{CgroupAttachMode, FdLink, Link};
use aya::programs::{CgroupSockAddr, Program, ProgramError, SkLookup, SockOps};
use aya::{Ebpf, EbpfLoader};
use weft_common::{
    Expected, LAYOUT_VERSION, Listener, LookupConfig, Opener, OrigDst, Pod, PodStats, Probed, Socket, Source,
};

use super::bpf::{self, Insert, Map};
use super::error::{Context, DatapathError};
use super::mounts::BpfDir;

/// The object that `cargo xtask build` made, or nothing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft.bpf.o"));

/// The hooks of the whole machine.
const CGROUP_PROGRAMS: [&str; 5] = ["connect4", "connect6", "getpeername4", "getpeername6", "establish"];
const LOOKUP_PROGRAM: &str = "lookup";
/// What takes its place on kernels that do not say over which device a packet came.
const LOOKUP_PROGRAM_UNPROVEN: &str = "lookup_unproven";
const MAPS: [&str; 10] = [
    "PODS",
    "POD_STATS",
    "SOCKETS",
    "ORIG_DST",
    "EXPECTED",
    "LISTENERS",
    "HOME",
    "PROBED",
    "NODE_CONNECTS",
    "NODE_ITSELF",
];
/// Each instance of the pods' program has its own of these.
const CONFIG_MAP: &str = "LOOKUP_CONFIG";
const POD_LINK: &str = "pod_";

/// The maps that the agent reads or writes. `weft-common` says what is in them.
#[derive(Debug)]
pub struct Maps {
    pub pods: Map<u64, Pod>,
    pub stats: Map<u64, PodStats>,
    /// Keyed by socket descriptor.
    pub sockets: Map<i32, Socket>,
    pub orig_dst: Map<Source, OrigDst>,
    /// Values are socket descriptors.
    pub listeners: Map<Listener, i32>,
    pub home: Map<u32, u64>,
    pub probed: Map<Probed, u32>,
    pub node_connects: Map<Expected, Opener>,
    pub node_itself: Map<u64, u32>,
}

impl Maps {
    fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            pods: Map::open(&dir.join("PODS"))?,
            stats: Map::open(&dir.join("POD_STATS"))?,
            sockets: Map::open(&dir.join("SOCKETS"))?,
            orig_dst: Map::open(&dir.join("ORIG_DST"))?,
            listeners: Map::open(&dir.join("LISTENERS"))?,
            home: Map::open(&dir.join("HOME"))?,
            probed: Map::open(&dir.join("PROBED"))?,
            node_connects: Map::open(&dir.join("NODE_CONNECTS"))?,
            node_itself: Map::open(&dir.join("NODE_ITSELF"))?,
        })
    }
}

/// A pod's link that a dead agent left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedPod {
    /// The pod's namespace.
    pub cookie: u64,
    /// Whether the namespace still exists.
    pub alive: bool,
}

/// Where everything is pinned, for this version of the layout.
#[derive(Debug)]
pub struct Pins {
    base: BpfDir,
    dir: PathBuf,
}

impl Pins {
    /// The pins below `base`.
    pub fn at(base: BpfDir) -> Self {
        let dir = base.path().join(format!("v{LAYOUT_VERSION}"));
        Self { base, dir }
    }

    /// Where they are, as people write it.
    pub fn name(&self) -> &Path {
        self.base.name()
    }

    fn link(&self, program: &str) -> PathBuf {
        self.dir.join(format!("link_{program}"))
    }

    fn pod(&self, cookie: u64) -> PathBuf {
        self.dir.join(pod_pin(cookie))
    }

    /// All pods that have a link here.
    pub fn pods(&self) -> Result<Vec<PinnedPod>, DatapathError> {
        let what = || format!("cannot read {}", self.dir.display());
        let mut pods = Vec::new();
        for entry in fs::read_dir(&self.dir).context(what)? {
            let entry = entry.context(what)?;
            let Some(cookie) = pod_cookie(&entry.file_name().to_string_lossy()) else { continue };
            let alive = bpf::open_pinned(&entry.path()).and_then(|link| bpf::link_is_alive(link.as_fd()));
            pods.push(PinnedPod { cookie, alive: alive.unwrap_or(false) });
        }
        Ok(pods)
    }

    /// Removes a pod's link: what arrives for it is its own again.
    pub fn remove_pod(&self, cookie: u64) -> Result<(), DatapathError> {
        let path = self.pod(cookie);
        // Its namespace may be gone, and the link with it.
        bpf::open_pinned(&path).and_then(|link| bpf::detach_link(link.as_fd())).ok();
        remove_if_there(&path).context(|| format!("cannot remove {}", path.display()))
    }

    /// Removes what other versions of the layout have pinned.
    pub fn remove_other_versions(&self) -> Result<(), DatapathError> {
        for entry in fs::read_dir(self.base.path()).into_iter().flatten().flatten() {
            if entry.path() != self.dir {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes everything. Programs and maps end when nobody holds them.
    pub fn remove_all(&self) -> Result<(), DatapathError> {
        remove_tree(self.base.path())
    }
}

fn pod_pin(cookie: u64) -> String {
    format!("{POD_LINK}{cookie:x}")
}

fn pod_cookie(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(POD_LINK)?, 16).ok()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_tree(dir: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(dir) {
        // A directory that is a mount point itself stays, empty.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => {
            Err(error).context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Loads the object, whole, once for the machine and once for each pod.
pub struct Loader {
    /// Kept, because making one parses the kernel's own type information (5 MB, 30 ms), which is of no use here.
    loader: EbpfLoader<'static>,
    /// The program for pods that this kernel takes.
    lookup: &'static str,
}

impl Loader {
    fn new(pins: &Pins) -> Self {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for name in MAPS {
            loader.map_pin_path(name, pins.dir.join(name));
        }
        Self { loader, lookup: LOOKUP_PROGRAM }
    }

    /// Whether the kernel proves that what passes as the agent's own connection to a program is that.
    pub fn proves_own(&self) -> bool {
        self.lookup == LOOKUP_PROGRAM
    }

    fn load(&mut self) -> Result<Ebpf, DatapathError> {
        self.loader.load(OBJECT).map_err(|error| DatapathError::Load(Box::new(error)))
    }

    /// Loads the programs and attaches those of the whole machine, replacing a dead agent's without a gap.
    pub fn start(pins: &Pins, cgroup: &File) -> Result<(Self, Maps), DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoPrograms);
        }
        fs::create_dir_all(&pins.dir).context(|| format!("cannot create {}", pins.dir.display()))?;
        let mut loader = Self::new(pins);
        let mut object = loader.load()?;
        let maps = Maps::open(&pins.dir).context(|| format!("cannot open maps in {}", pins.dir.display()))?;
        for name in CGROUP_PROGRAMS {
            attach_to_cgroup(&mut object, name, cgroup, &pins.link(name))
                .map_err(|source| DatapathError::Program { program: name, source: Box::new(source) })?;
        }
        loader.lookup = choose_lookup(&mut object)?;
        Ok((loader, maps))
    }

    /// What is pinned, if all of it is in force: nothing of the machine's is touched.
    pub fn of_pinned(pins: &Pins) -> Result<Option<(Self, Maps)>, DatapathError> {
        let in_force = |name: &&str| {
            bpf::open_pinned(&pins.link(name))
                .and_then(|link| bpf::link_is_alive(link.as_fd()))
                .unwrap_or(false)
        };
        if !CGROUP_PROGRAMS.iter().all(in_force) {
            return Ok(None);
        }
        let maps = Maps::open(&pins.dir).context(|| format!("cannot open maps in {}", pins.dir.display()))?;
        let mut loader = Self::new(pins);
        loader.lookup = choose_lookup(&mut loader.load()?)?;
        Ok(Some((loader, maps)))
    }

    /// Attaches a pod's own program to its namespace, replacing one that is there without a gap.
    pub fn attach_pod(
        &mut self,
        pins: &Pins,
        config: LookupConfig,
        netns: BorrowedFd<'_>,
    ) -> Result<(), DatapathError> {
        // Every instance has a map of its own for this; pinned only until it is written.
        let pin = pins.dir.join(format!("config_{:x}", config.cookie));
        remove_if_there(&pin).context(|| format!("cannot remove {}", pin.display()))?;
        self.loader.map_pin_path(CONFIG_MAP, pin.clone());
        let loaded = self.load();
        let written =
            Map::<u32, LookupConfig>::open(&pin).and_then(|map| map.insert(&0, &config, Insert::Any));
        remove_if_there(&pin).ok();
        let mut object = loaded?;
        written.context(|| format!("cannot write map {CONFIG_MAP}"))?;
        attach_to_netns(&mut object, self.lookup, netns, &pins.pod(config.cookie))
            .map_err(|source| DatapathError::Program { program: self.lookup, source: Box::new(source) })
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Loader").finish_non_exhaustive()
    }
}

fn attach_to_cgroup(
    object: &mut Ebpf,
    name: &'static str,
    cgroup: &File,
    pin: &Path,
) -> Result<(), ProgramError> {
    // A link allows others beside it by itself.
    let mode = CgroupAttachMode::Single;
    match object.program_mut(name) {
        Some(Program::CgroupSockAddr(program)) => {
            let program: &mut CgroupSockAddr = program;
            program.load()?;
            if replace(pin, program.fd()?.as_fd())? {
                return Ok(());
            }
            let id = program.attach(cgroup, mode)?;
            pin_link(program.take_link(id)?, pin)
        }
        Some(Program::SockOps(program)) => {
            let program: &mut SockOps = program;
            program.load()?;
            if replace(pin, program.fd()?.as_fd())? {
                return Ok(());
            }
            let id = program.attach(cgroup, mode)?;
            pin_link(program.take_link(id)?, pin)
        }
        _ => Err(missing(name)),
    }
}

/// The program for pods that this kernel takes.
fn choose_lookup(object: &mut Ebpf) -> Result<&'static str, DatapathError> {
    let Err(error) = load_lookup(object, LOOKUP_PROGRAM) else { return Ok(LOOKUP_PROGRAM) };
    match load_lookup(object, LOOKUP_PROGRAM_UNPROVEN) {
        Ok(_) => Ok(LOOKUP_PROGRAM_UNPROVEN),
        // It is the same program but for one field: what is wrong with it, the first error says.
        Err(_) => Err(DatapathError::Program { program: LOOKUP_PROGRAM, source: Box::new(error) }),
    }
}

/// Loads one of a pod's programs into the kernel, which checks it.
fn load_lookup<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SkLookup, ProgramError> {
    let Some(Program::SkLookup(program)) = object.program_mut(name) else {
        return Err(missing(name));
    };
    program.load()?;
    Ok(program)
}

fn attach_to_netns(
    object: &mut Ebpf,
    name: &str,
    netns: BorrowedFd<'_>,
    pin: &Path,
) -> Result<(), ProgramError> {
    let program = load_lookup(object, name)?;
    if replace(pin, program.fd()?.as_fd())? {
        return Ok(());
    }
    let id = program.attach(netns)?;
    pin_link(program.take_link(id)?, pin)
}

/// Puts `program` into the link pinned at `pin`. False: there is none that is alive, and nothing is pinned there.
fn replace(pin: &Path, program: BorrowedFd<'_>) -> Result<bool, ProgramError> {
    match bpf::open_pinned(pin).and_then(|link| bpf::update_link(link.as_fd(), program)) {
        Ok(()) => Ok(true),
        Err(_) => remove_if_there(pin).map(|()| false).map_err(ProgramError::IOError),
    }
}

fn pin_link<L>(link: L, pin: &Path) -> Result<(), ProgramError>
where
    L: Link,
    FdLink: TryFrom<L>,
{
    let not_a_link = || ProgramError::IOError(io::Error::other("this kernel has no bpf_link for the hook"));
    let link = FdLink::try_from(link).map_err(|_| not_a_link())?;
    link.pin(pin).map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    Ok(())
}

fn missing(name: &str) -> ProgramError {
    ProgramError::IOError(io::Error::new(io::ErrorKind::NotFound, format!("no program {name} in the object")))
}

#[cfg(test)]
mod tests {
    use super::{pod_cookie, pod_pin};

    #[test]
    fn a_pods_pin_tells_its_cookie() {
        assert_eq!(pod_cookie(&pod_pin(0x1_0000_00ab)), Some(0x1_0000_00ab));
        assert_eq!(pod_cookie("PODS"), None);
        assert_eq!(pod_cookie("pod_x"), None);
    }
}
