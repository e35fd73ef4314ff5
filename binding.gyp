{
  "targets": [
    {
      "target_name": "recovery_line",
      "sources": [
        "native/addon/glue.c",
        "native/addon/capture_glue.c",
        "native/addon/ring_glue.c",
        "native/addon/wake.c",
        "native/addon/lock.c",
        "native/addon/peer.c",
        "native/addon/memory_glue.c",
        "native/addon/userfault_glue.c",
        "native/addon/process_glue.c",
        "native/addon/file_glue.c",
        "native/addon/backend.c",
        "native/addon/output_glue.c",
        "native/attach/remote.c",
        "native/ring/memory_ring.c",
        "native/ring/ring_map.c",
        "native/ring/ring_read.c",
        "native/loader/attached.c",
        "native/loader/capture.c",
        "native/loader/cgroup.c",
        "native/loader/cut.c",
        "native/loader/output.c",
        "native/loader/parts.c",
        "native/loader/probe.c",
        "native/loader/programs.c",
        "native/loader/userfault.c"
      ],
      "libraries": ["-lbpf"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
      "cflags!": ["-O3"]
    },
    {
      "target_name": "recovery-line-attach",
      "type": "executable",
      "sources": [
        "native/attach/attach.c",
        "native/attach/serve.c",
        "native/loader/attached.c",
        "native/loader/capture.c",
        "native/loader/cgroup.c",
        "native/loader/cut.c",
        "native/loader/output.c",
        "native/loader/parts.c",
        "native/loader/probe.c",
        "native/loader/programs.c",
        "native/loader/userfault.c"
      ],
      "libraries": ["-lbpf"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIE"],
      "cflags!": ["-O3"],
      "ldflags": ["-pie", "-Wl,-z,relro,-z,now"],
      "ldflags!": ["-rdynamic"]
    },
    {
      "target_name": "recovery-line-wait",
      "type": "executable",
      "sources": ["native/wait/wait.c", "native/wait/become.c"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIE"],
      "cflags!": ["-O3"],
      "ldflags": ["-pie", "-Wl,-z,relro,-z,now"],
      "ldflags!": ["-rdynamic"]
    },
    {
      "target_name": "recovery-line-enter",
      "type": "executable",
      "sources": ["native/wait/enter.c", "native/wait/become.c"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIE"],
      "cflags!": ["-O3"],
      "ldflags": ["-pie", "-Wl,-z,relro,-z,now"],
      "ldflags!": ["-rdynamic"]
    }
  ]
}
