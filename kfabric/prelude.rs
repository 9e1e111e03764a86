// SPDX-License-Identifier: GPL-2.0

//! What consumers use.

pub use crate::av::{Address, AddressVector, Name};
pub use crate::cm::{ConnectionRequest, PassiveEndpoint, PrivateData};
pub use crate::cntr::{Counter, Counts, Reading, Threshold};
pub use crate::cq::{Callback, Completion, CompletionQueue, Reader};
pub use crate::domain::Domain;
pub use crate::endpoint::{
    Builder, ContextBuilder, Endpoint, RxContext, ScalableBuilder, ScalableEndpoint, TxContext,
    MIN_MULTI_RECV,
};
pub use crate::eq::{Callback as EventCallback, Event, EventQueue, Reader as EventReader};
pub use crate::fabric::Fabric;
pub use crate::info::{
    getinfo, AtomicAgent, Caps, Effect, EndpointType, Hints, Info, Label, Limits, Namespace, Order,
    Place, MAX_CONTEXTS,
};
pub use crate::memory::{BioVec, Folio, Memory, ScatterList};
pub use crate::mr::{
    Access, Attributes as RegionAttributes, LocalSlice, MemoryRegion, RemoteRegion, RemoteSlice,
};
pub use crate::op::{
    Action, AtomicAction, AtomicOp, Buffer, Datatype, Failure, Kind, Level, OpId, Options, Outcome,
    Part, Refused, Status, Success,
};
pub use crate::provider::registry::unplug;
pub use crate::sys::autoload::load_provider;
pub use crate::sys::bar::{DeviceMemory, Lender};
pub use crate::sys::chardev::{CharDevice, Extent, Registration as CharDeviceRegistration};
pub use crate::sys::context::in_softirq;
pub use crate::sys::pmem::Pmem;
pub use crate::sys::random::u64 as random;
pub use crate::sys::shelf::Shelf;
pub use crate::sys::work::WorkQueue;
