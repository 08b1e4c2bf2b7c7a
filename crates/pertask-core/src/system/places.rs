//! The places of PMUs: how a PMU is registered and unregistered.

use super::System;
use crate::active::MAX_PMUS;
use crate::cpu::CpuRecord;
use crate::error::Error;
use crate::foreign::{Delayed, OnUnwind};
use crate::pmu::{AnyPmu, Pmu, PmuHandle, Registered};
use crate::primitive::{Ordering, lock};
use crate::rcu;
use std::ptr;

impl System {
    /// Gives a PMU a place: a slot in every task and data on every CPU, until it is [unregistered](PmuHandle::unregister).
    ///
    /// # Errors
    /// [`Error::TooManyPmus`] if all [`MAX_PMUS`] places are taken.
    ///
    /// # Panics
    /// If the PMU panics. If it panics while it makes its data for a CPU, it is not registered. If it panics in `cpu_online`,
    /// it is registered, and has been told of all CPUs.
    #[allow(unsafe_code)]
    pub fn register<P: Pmu>(&'static self, pmu: P) -> Result<PmuHandle<P>, Error> {
        let (index, serial) = self.reserve_place()?;
        let give_back = OnUnwind(|| self.give_place_back(index));
        let registered = Box::into_raw(Box::new(Registered::new(pmu, self, index, serial)));
        // SAFETY: the pointer came from a box, and until `publish` nobody else has a reference to it.
        let free = OnUnwind(|| drop(unsafe { Box::from_raw(registered) }));
        // SAFETY: the pointer came from a box, and a published PMU is never freed.
        let registered: &'static Registered<P> = unsafe { &*registered };
        let records = self.publish(registered);
        std::mem::forget((free, give_back));
        let mut panics = Delayed::default();
        for cpu in records {
            panics.call(|| cpu.tell_online(registered));
        }
        panics.go_on();
        Ok(PmuHandle(registered))
    }

    /// Reserves a place, and a serial number for the PMU that takes it.
    fn reserve_place(&self) -> Result<(usize, u32), Error> {
        let mut cpus = lock(&self.cpus);
        let free = (0..MAX_PMUS).find(|index| cpus.places & (1 << index) == 0);
        let index = free.ok_or(Error::TooManyPmus)?;
        cpus.places |= 1 << index;
        // The number wraps around after about a billion PMUs; nobody remembers the first ones by then.
        cpus.serial = (cpus.serial + 1) % (1 << 30);
        cpus.serial += u32::from(cpus.serial == 0);
        Ok((index, cpus.serial))
    }

    fn give_place_back(&self, index: usize) {
        lock(&self.cpus).places &= !(1 << index);
    }

    /// Makes a PMU visible to switches, with data for each CPU. Returns all CPUs.
    fn publish<P: Pmu>(&self, registered: &'static Registered<P>) -> Vec<&'static CpuRecord> {
        let mut records = Vec::new();
        loop {
            // Not under the lock: foreign code makes the data.
            records
                .iter()
                .for_each(|cpu: &&CpuRecord| registered.prepare_cpu(cpu.index() as usize));
            let mut cpus = lock(&self.cpus);
            if cpus.records.len() == records.len() {
                records.iter().for_each(|cpu| cpu.set_data(registered));
                let index = registered.state.index;
                // Release: pairs with the Acquire in `pmu`.
                self.pmus[index].store(registered.head(), Ordering::Release);
                registered.state.events.open();
                cpus.changes += 1;
                return records;
            }
            records.clone_from(&cpus.records);
        }
    }

    /// See [`PmuHandle::unregister`].
    pub(crate) fn unregister<P: Pmu>(&self, pmu: &'static Registered<P>) -> Result<(), Error> {
        let state = &pmu.state;
        if rcu::held() {
            return Err(Error::InsideHook);
        }
        if !self.is_registered(pmu) {
            return Err(Error::Unregistered);
        }
        // Otherwise this would wait for the hook that is being called, which may be its own caller.
        if lock(&self.cpus).records.iter().any(|cpu| cpu.is_telling(pmu)) {
            return Err(Error::InsideHook);
        }
        state.events.close()?;
        // AcqRel: pairs with the Acquire in `pmu`.
        self.pmus[state.index].swap(ptr::null_mut(), Ordering::AcqRel);
        lock(&self.cpus).changes += 1;
        // Afterwards, every section in which a thread found the PMU has ended.
        if let Err(refused) = rcu::synchronize() {
            self.publish(pmu).into_iter().for_each(|cpu| cpu.tell_online(pmu));
            return Err(refused);
        }
        // No event is left whose attach could retain data from now on.
        state.global.set_retains(false);
        state.global.release_retained(state);
        let mut cpus = lock(&self.cpus);
        cpus.records.iter().for_each(|cpu| cpu.take_data(state.index));
        cpus.places &= !(1 << state.index);
        Ok(())
    }

    fn is_registered<P: Pmu>(&self, pmu: &'static Registered<P>) -> bool {
        self.pmu(pmu.state.index as u32)
            .is_some_and(|found| ptr::eq(found.any().state(), &pmu.state))
    }
}
