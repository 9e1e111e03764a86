// SPDX-License-Identifier: GPL-2.0

//! The driver of a device that has memory of its own: QEMU's ivshmem, whose BAR 2 it lends.

use crate::Conformance;
use kernel::device::Core;
use kernel::device_id::IdArray;
use kernel::driver;
use kernel::module::this_module;
use kernel::pci;
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::prelude::*;

/// What the last device that was bound lends.
static LENT: Shelf<Arc<DeviceMemory>> = Shelf::new();

// Not with `pci_device_table!`: no machine shall load the suite because it has the device.
static IDS: IdArray<pci::DeviceId, (), 1> =
    IdArray::new_without_index([pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, 0x1110)]);

struct Driver;

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Lender<'bound>;
    const ID_TABLE: pci::IdTable<()> = &IDS;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Lender<'bound>, Error> + 'bound {
        device.enable_device_mem()?;
        let lender = Lender::new(device.iomap_region(2, c"kfi_conformance")?)?;
        LENT.put(lender.memory().clone())?;
        Ok(lender)
    }
}

/// The device, bound to its driver until this is dropped.
pub(crate) struct Bound {
    memory: Arc<DeviceMemory>,
    _driver: Pin<KBox<driver::Registration<pci::Adapter<Driver>>>>,
}

impl Bound {
    /// Binds the device. `ENXIO`: there is none, or another driver has it.
    pub(crate) fn new() -> Result<Self> {
        let driver = driver::Registration::new(c"kfi_conformance", this_module::<Conformance>());
        let driver = KBox::try_pin_init(driver, GFP_KERNEL)?;
        Ok(Bound {
            memory: LENT.take().ok_or(ENXIO)?,
            _driver: driver,
        })
    }

    /// What it lends.
    pub(crate) fn memory(&self) -> &Arc<DeviceMemory> {
        &self.memory
    }
}
