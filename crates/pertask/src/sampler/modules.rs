//! The modules: what code is mapped where, and how to unwind through it; read anew when libraries come or go.

use framehop::{ExplicitModuleSectionInfo, MustNotAllocateDuringUnwind, Unwinder as _};
use pertask_symbols::{MappedElf, Memory, Module, UnwindSections};
use std::io;

/// An unwinder that allocates nothing, over copies of the modules' unwind sections: a library that is unloaded takes
/// nothing with it that a handler may be reading.
pub(super) type Unwinder = framehop::UnwinderNative<Vec<u8>, MustNotAllocateDuringUnwind>;

/// Modules as they were last read.
pub(super) struct Modules {
    known: Vec<Known>,
    memory: Memory,
    /// How often libraries had been loaded and unloaded then.
    changes: Changes,
}

struct Known {
    module: Module,
    unwinding: Option<framehop::Module<Vec<u8>>>,
}

/// How often libraries have been loaded and unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    loaded: u64,
    unloaded: u64,
}

impl Modules {
    /// `changes` were asked for before: what changes meanwhile is read again.
    pub(super) fn read(changes: Changes) -> io::Result<Self> {
        let mut modules = Self { known: Vec::new(), memory: Memory::open()?, changes };
        modules.read_mappings()?;
        Ok(modules)
    }

    /// Reads them again if libraries have come or gone. Whether it has.
    pub(super) fn refresh(&mut self, changes: Changes) -> bool {
        if changes == self.changes {
            return false;
        }
        self.changes = changes;
        self.read_mappings().is_ok()
    }

    /// What is mapped now.
    pub(super) fn list(&self) -> impl Iterator<Item = &Module> {
        self.known.iter().map(|known| &known.module)
    }

    pub(super) fn unwinder(&self) -> Unwinder {
        let mut unwinder = Unwinder::new();
        let unwindings = self.known.iter().filter_map(|known| known.unwinding.clone());
        unwindings.for_each(|module| unwinder.add_module(module));
        unwinder
    }

    fn read_mappings(&mut self) -> io::Result<()> {
        let mappings = pertask_symbols::mappings()?;
        let images = MappedElf::all(&mappings, &self.memory);
        self.known = images.map(|image| self.known(&image)).collect();
        Ok(())
    }

    /// The module of this image: the one that was read before if it is the same.
    fn known(&self, image: &MappedElf<'_>) -> Known {
        let module = image.module();
        let before = self.known.iter().find(|known| known.module == module);
        let unwinding = match before {
            Some(before) => before.unwinding.clone(),
            None => image.unwind_sections().map(unwinding),
        };
        Known { module, unwinding }
    }
}

impl Changes {
    /// Asks the loader, which may be at work on another thread: no lock may be held that a library's constructor could want.
    #[allow(unsafe_code)]
    pub(super) fn now() -> Self {
        unsafe extern "C" fn note(
            info: *mut libc::dl_phdr_info,
            _: usize,
            data: *mut libc::c_void,
        ) -> libc::c_int {
            // SAFETY: the loader passes an entry and the pointer it was given, both good for this call.
            unsafe {
                let info = &*info;
                *data.cast::<Changes>() =
                    Changes { loaded: info.dlpi_adds, unloaded: info.dlpi_subs };
            }
            // The first entry tells all.
            1
        }
        let mut changes = Self::default();
        // SAFETY: a callback of the right type, and a place for what it notes.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut changes).cast()) };
        changes
    }
}

fn unwinding(sections: UnwindSections) -> framehop::Module<Vec<u8>> {
    let UnwindSections { path, code, bias, frames, frames_bytes, index, index_bytes, .. } =
        sections;
    let sections = ExplicitModuleSectionInfo {
        eh_frame: Some(frames_bytes),
        eh_frame_svma: Some(frames),
        eh_frame_hdr: Some(index_bytes),
        eh_frame_hdr_svma: Some(index),
        ..ExplicitModuleSectionInfo::default()
    };
    framehop::Module::new(path, code, bias, sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_itself_is_among_them_and_can_be_unwound_through() {
        let modules = Modules::read(Changes::now()).unwrap();
        let here = (unwinding as fn(_) -> _ as *const ()).addr() as u64;
        let holds =
            |module: &Module| module.ranges.iter().any(|range| range.addresses.contains(&here));
        let own = modules.known.iter().find(|known| holds(&known.module)).unwrap();
        assert_eq!(own.module.path, std::env::current_exe().unwrap().to_str().unwrap());
        assert!(own.unwinding.is_some());
        assert!(modules.list().any(|module| module.path == "[vdso]"));
        assert!(modules.unwinder().max_known_code_address() > here);
    }

    #[test]
    fn nothing_is_read_again_while_nothing_changes() {
        let mut modules = Modules::read(Changes::now()).unwrap();
        assert!(!modules.refresh(Changes::now()));
        modules.changes = Changes::default();
        assert!(modules.refresh(Changes::now()));
    }
}
