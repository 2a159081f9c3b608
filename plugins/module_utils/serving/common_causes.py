# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docker, the unit's guard, drivers and the libraries of every engine write when a start fails.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Each row is a regular expression,
the cause and the next step, both filled with the pattern's groups. Of one line the first row that matches counts; the
rules of the engine come before these (causes.py).
"""

from __future__ import annotations

_FAULT_REMEDY = (
    "the lines name the rank; look for the GPU's own error (journalctl -k -g 'NVRM|Xid|amdgpu'), then try another "
    "attention or MoE backend, or another glm_engine_version"
)
_WEIGHTS_REMEDY = "run the role weights again; it checks size and hash of each file"
_DRIVER_REMEDY = "reboot the host if its driver was updated; else choose an image for this driver's CUDA"

CAUSES: tuple[tuple[str, str, str], ...] = (
    # The guard and docker.
    (
        r"answers /v1/models but not a chat",
        "the engine answers /health and /v1/models but not a chat",
        "read the traceback below; a flag combination this accelerator has no kernels for does this "
        "(expert parallelism, an attention or quantisation backend)",
    ),
    (
        r"glm: FAILED: (.+) is gone; stopping this one",
        r"\1 of this replica is gone, so this host stopped too",
        "look at the status of that host: its engine failed first",
    ),
    (
        r"failed to listen on any local network address\. port: (\d+).*(?:EADDRINUSE|already in use)",
        r"the port is in use by another program: \1, where the ranks of the engine meet",
        r"stop that program (ss -ltnp 'sport = :\1' names it), or another instance of the engine on this host",
    ),
    (
        r"is in use by another program|port is already allocated|[Aa]ddress already in use|EADDRINUSE",
        "the port is in use by another program",
        "stop that program (ss -ltnp names it) or choose another glm_engine_port",
    ),
    (
        r"is not an address of this host|[Cc]annot assign requested address",
        "the endpoint's address is not an address of this host",
        "set glm_bind to an address that `ip address` shows on the host",
    ),
    (
        r"error: (unrecognized arguments: .+|argument .+: invalid choice: \S+|ambiguous option: .+|"
        r"the following arguments are required: .+)",
        r"this engine version does not know an argument it was given (\1)",
        "remove the argument from glm_engine_args or choose another glm_engine_version",
    ),
    (
        r"error: (argument .+: (?:invalid|expected) .+)",
        r"this engine version does not accept the value of an argument (\1)",
        "correct the argument in glm_engine_args",
    ),
    (
        r"No such image|Unable to find image|pull access denied",
        "the image is not on the host",
        "run the role engine_image again; the unit never pulls",
    ),
    (
        r'could not select device driver "cdi"',
        "docker's CDI support is off",
        "run the role docker: it sets features.cdi in /etc/docker/daemon.json",
    ),
    (
        r"the GPUs are not ready|unresolvable CDI devices|CDI device injection failed|could not select device driver",
        "docker was not given the GPUs",
        "check `systemctl status nvidia-cdi-refresh` and /etc/cdi, then run the roles gpu_base and docker again",
    ),
    (
        r"Cannot connect to the Docker daemon|error during connect",
        "the docker daemon does not answer",
        "check `systemctl status docker`",
    ),
    (
        r"error setting rlimit|setrlimit.*[Oo]peration not permitted",
        "docker may not raise the limits the engine needs",
        "the docker daemon needs CAP_SYS_RESOURCE to set memlock and stack",
    ),
    # Drivers.
    (
        r"[Ss]ystem not yet initialized|CUDA error 802|[Ee]rror 802|cudaErrorSystemNotReady",
        "the NVSwitch fabric is not up (CUDA error 802)",
        "check `systemctl status nvidia-fabricmanager`: its version must equal the driver's",
    ),
    (
        r"[Ee]rror 803|unsupported display driver / cuda driver combination|cudaErrorSystemDriverMismatch",
        "the image's CUDA libraries do not fit the NVIDIA driver (CUDA error 803)",
        "choose an image for this driver's CUDA; in the image LD_LIBRARY_PATH must not put its cuda-compat first",
    ),
    (
        r"NVIDIA driver on your system is too old(?: \(found version (\d+)\))?|CUDA driver version is insufficient",
        r"the NVIDIA driver is too old for the image's CUDA: the driver does not fit",
        "update the driver (role gpu_driver), or choose an image variant for this driver's CUDA",
    ),
    (
        r"[Dd]river/library version mismatch|Failed to initialize NVML",
        "the NVIDIA driver does not fit the libraries in use",
        _DRIVER_REMEDY,
    ),
    (
        r"No (?:CUDA|HIP) GPUs are available|Found no NVIDIA driver|no CUDA-capable device is detected|"
        r"lib(?:cuda|nvidia-ml|amdhip64)\.so[.\d]*: cannot open shared object|nvml error: driver not loaded",
        "the engine sees no GPU, or no driver",
        "check nvidia-smi or rocm-smi on the host, then the devices that the unit gives the engine",
    ),
    (
        r"[Ii]nvalid device ordinal",
        "the engine wants more GPUs than it was given",
        "compare the parallel sizes in the plan with the GPUs that nvidia-smi shows",
    ),
    # Memory of GPU and host. Too little for an allocation, or taken by somebody else.
    (
        # Only where torch names its own process too: in a container that is "Process N", by its number on the host.
        r"[Oo]ut of memory\.(?=.*this process has)"
        r".*?Process (\d+) has ((?:[1-9]\d+|[2-9])(?:\.\d+)? GiB) memory in use",
        r"GPU memory ran out: another process holds it (process \1 has \2)",
        r"end process \1 (nvidia-smi names it), or give the engine less with a lower memory fraction",
    ),
    (
        r"OutOfMemoryError|(?:CUDA|HIP|\[CUDA\]:|GPU) (?:error: )?out of memory|cudaErrorMemoryAllocation|"
        r"hipErrorOutOfMemory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|"
        r"[Cc]uda failure (?:2 )?'out of memory'",
        "GPU memory ran out: an allocation beside the KV cache failed",
        "lower the memory fraction, the number of tokens or sequences in a batch, or the context length in "
        "glm_engine_args",
    ),
    (
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|std::bad_alloc|^MemoryError$|"
        r"\[Errno 12\] Cannot allocate memory",
        "the host's memory ran out: an allocation failed",
        "see what uses the host's memory (free -h); lower what the engine keeps there (offloading, swap, caches)",
    ),
    (
        r"Insufficient space in /dev/shm|ncclShmOpen|[Ss]hared memory .*too small|"
        r"No space left on device: '?/(?:dev/shm|psm_)|/dev/shm/.*No space left on device|"
        r"unable to (?:allocate|open|mmap) shared memory(?!.*(?:Too many open files|No such file or directory))",
        "/dev/shm is too small",
        "enlarge /dev/shm on the host: the container shares it",
    ),
    (
        r"Too many open files",
        "the limit of open files is reached",
        "raise the hard limit of the docker daemon, or of the unit on bare metal (LimitNOFILE); the role gpu_base sets "
        "nofile for logins",
    ),
    (r"No space left on device", "a disk is full", "free space on the host (df -h) and run again"),
    (
        r"Unable to open /dev/(kfd|dri)|/dev/(?:kfd|dri\b\S*?)'?:? .{0,40}[Pp]ermission denied|"
        r"[Pp]ermission denied.{0,40}/dev/(?:kfd|dri)|(?<!aborting with error : )HSA_STATUS_ERROR_OUT_OF_RESOURCES",
        "the engine may not open the GPU (/dev/kfd, /dev/dri)",
        "check the owner and groups of these devices (render, video) and the groups that the unit gives the engine",
    ),
    (
        r"\[Errno (?:13|30)\] (Permission denied|Read-only file system): ('[^']+')",
        r"the engine may not write to \2 (\1)",
        "check the owner and mounts of that path; caches belong below the plan's cache folder",
    ),
    # Faults of a kernel or a GPU. On one rank; the others then complain about NCCL.
    (
        r"an illegal memory access was encountered|CUDA_ERROR_ILLEGAL_ADDRESS|cudaErrorIllegalAddress|"
        r"hipErrorIllegalAddress",
        "a GPU kernel used memory that is not its own (illegal memory access)",
        _FAULT_REMEDY,
    ),
    (
        r"Memory access fault by GPU node-(\d+)",
        r"a GPU kernel used memory that is not its own (ROCm memory access fault, GPU node \1)",
        _FAULT_REMEDY,
    ),
    (
        r"(HSA_STATUS_ERROR_\w+)",
        r"a GPU stopped with a hardware exception (\1)",
        _FAULT_REMEDY,
    ),
    (
        r"uncorrectable (?:ECC|NVLink) error|cudaErrorECCUncorrectable|cudaErrorNvlinkUncorrectable",
        "a GPU has an uncorrectable hardware error",
        "nvidia-smi -q -d ECC names the GPU; reset or replace the host before the next start",
    ),
    (
        r"device-side assert triggered|cudaErrorAssert",
        "a check inside a GPU kernel failed (device-side assert)",
        _FAULT_REMEDY,
    ),
    (
        r"unspecified launch failure|cudaErrorLaunchFailure|misaligned address|an illegal instruction was encountered",
        "a GPU kernel crashed",
        _FAULT_REMEDY,
    ),
    (
        r"no kernel image is available|cudaErrorNoKernelImageForDevice|hipErrorNoBinaryForGpu|invalid device function",
        "the image has no kernels for this GPU",
        "choose an image variant or a glm_engine_version that is built for this GPU",
    ),
    (
        r"Unsupported gpu architecture '?([\w.]+)'?",
        r"the CUDA compiler is too old for this GPU (\1)",
        "choose an image with a newer CUDA toolkit; on bare metal install it in /usr/local/cuda",
    ),
    (
        r"Could not find nvcc|nvcc: (?:command )?not found|CUDA_HOME environment variable is not set|"
        r"No such file or directory: '[^']*(?:nvcc|ninja)'",
        "kernels are compiled at start, and the compiler is not there",
        "use the published image, which has it; on bare metal install the CUDA toolkit in /usr/local/cuda",
    ),
    (
        r"[Oo]ut of resources?: ([\w ]+), Required: (\d+), Hardware limit: (\d+)",
        r"a kernel needs more \1 than this GPU has (\2 of \3)",
        "try another attention or MoE backend, or a glm_engine_version that has the kernel for this GPU",
    ),
    # The model's files.
    (
        r"does not recognize this architecture",
        "the image is too old for this model",
        "choose a glm_engine_version whose image knows the model's architecture",
    ),
    (
        r"SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeader|incomplete metadata",
        "a weight file is truncated or damaged",
        _WEIGHTS_REMEDY,
    ),
    (
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been disabled|"
        r"[Cc]annot find the requested files in the (?:disk|local) cache|couldn't connect to 'https://huggingface",
        "a file of the model is not on the host, and the engine may not fetch it (offline)",
        "run the role weights again; what glm_engine_args names (a draft model, a tokenizer) must be on the host too",
    ),
    (
        r"does not appear to have (?:a file|files) named (.+?)\. ",
        r"a file of the model is not on the host (\1)",
        _WEIGHTS_REMEDY,
    ),
    (
        r"Repo id must be in the form|Repo id must use alphanumeric",
        "the model's folder is not where the command says",
        "run the role weights again, then the role serve",
    ),
    (
        r"not a valid JSON file|^json\.decoder\.JSONDecodeError",
        "a configuration file of the model is damaged",
        _WEIGHTS_REMEDY,
    ),
    (
        r"undefined symbol: (\S+)|version `(GLIBC\w+_[\d.]+)' not found",
        "a compiled library does not fit the others in the image or environment",
        "use the published image; on bare metal remove the lock file of packages and run the role engine_venv again",
    ),
)

# What is seen of a process that had no time for words of its own; more than an exception that has no traceback.
CRASHES: tuple[tuple[str, str, str], ...] = (
    (
        r"Fatal Python error: Segmentation fault|SIGSEGV|exit ?code:? ?-11\b|': -11\b",
        "a process of the engine crashed (segmentation fault)",
        "read the stack above it; a library that does not fit the driver or the GPU does this",
    ),
    (
        r"Fatal Python error: Bus error|\bBus error\b|SIGBUS|exit ?code:? ?-7\b|': -7\b",
        "a process of the engine crashed (bus error)",
        "see whether /dev/shm is full (df -h /dev/shm), then whether a disk has errors (journalctl -k)",
    ),
    (
        r"terminate called after throwing|Fatal Python error: Aborted|exit ?code:? ?-6\b|': -6\b",
        "a process of the engine aborted",
        "read the lines above it",
    ),
)

# What processes say when another one is gone or silent: the cause only where nothing better is in the log.
CASCADES: tuple[tuple[str, str, str], ...] = (
    (
        r"(?:\[Rank (\d+)\] )?Watchdog caught collective operation timeout: \w+\(.*?OpType=(\w+)",
        r"a rank hung in a collective (\2, seen by rank \1)",
        "the rank that does not complain is the one that hung: read its last lines, and the kernel's log "
        "(journalctl -k -g 'NVRM|Xid|amdgpu')",
    ),
    (
        r"Watchdog caught collective operation timeout",
        "a rank hung in a collective",
        "the rank that does not complain is the one that hung: read its last lines, and the kernel's log "
        "(journalctl -k -g 'NVRM|Xid|amdgpu')",
    ),
    (
        r"\b(\d+)/(\d+) clients joined",
        r"only \1 of \2 ranks came to the meeting point",
        "look at the ranks that did not: their hosts, and whether they reach the first host's private address",
    ),
    (
        r"DistStoreError|[Ss]ocket [Tt]imeout|wait timeout after \d+ms|monitoredBarrier.*timed out",
        "the ranks waited for one of them until the time was up",
        "read the last lines of each rank; the one that is missing or silent failed first",
    ),
    (
        r"no socket interface found|[Uu]nable to find address for: (\S+)|[Nn]etwork interface .*not found",
        "the network interface of the ranks is not on this host",
        "set glm_network_interface to one that `ip address` shows",
    ),
    (
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError|ncclRemoteError",
        "NCCL could not connect the GPUs",
        "run with NCCL_DEBUG=INFO; check the fabric manager, IOMMU and ACS",
    ),
    (
        r"^KeyError: 'glm\w*'$",
        "the image is too old for this model",
        "choose a glm_engine_version whose image knows the model's architecture",
    ),
    *CRASHES,
    (
        r"unable to open shared memory.*No such file or directory",
        "a process of the engine lost the memory that it shared with another one",
        "read the last lines of each rank; the one that is missing failed first",
    ),
    (
        r"[Cc]onnection (?:reset|closed) by peer|[Bb]roken pipe",
        "a process of the engine lost another one",
        "read the last lines of each rank; the one that is missing failed first",
    ),
)

# Lines that only say that something else failed.
WRAPPERS: tuple[str, ...] = (
    r"torch\.multiprocessing\.spawn\.Process\w+Exception|-- Process \d+ terminated with",
    r"torch\.distributed\.elastic\.multiprocessing\.errors\.ChildFailedError",
    r"concurrent\.futures\.process\.BrokenProcessPool",
    r"^EOFError$",
    r"^subprocess\.CalledProcessError",
    r"generator didn't (?:yield|stop)",
)
