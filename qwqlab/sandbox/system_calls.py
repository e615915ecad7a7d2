"""The system calls that a program in the sandbox has no use for, by name.

`confine` takes the list with its plan, since it can import nothing of the lab; a name that an
architecture does not have is passed over there.
"""

from __future__ import annotations

REFUSED = (
    "fork vfork execve execveat memfd_create setsid setpgid socket socketpair socketcall "
    "connect bind listen accept accept4 sendto sendmsg sendmmsg tkill rt_sigqueueinfo "
    "rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal ptrace process_vm_readv "
    "process_vm_writev kcmp move_pages migrate_pages mount umount umount2 pivot_root chroot "
    "move_mount open_tree fsopen fsconfig fsmount fspick unshare setns chmod fchmod fchmodat "
    "chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr fsetxattr "
    "removexattr lremovexattr fremovexattr truncate mknod mknodat open_by_handle_at "
    "name_to_handle_at inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark "
    "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl ipc "
    "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr io_uring_setup "
    "io_uring_enter io_uring_register io_setup io_submit bpf perf_event_open userfaultfd "
    "add_key request_key keyctl personality setrlimit seccomp setuid setgid setreuid setregid "
    "setresuid setresgid setfsuid setfsgid setgroups capset kexec_load kexec_file_load reboot "
    "swapon swapoff init_module finit_module delete_module acct quotactl syslog vhangup iopl "
    "ioperm modify_ldt sync syncfs settimeofday clock_settime clock_adjtime adjtimex "
    "sethostname setdomainname setpriority ioprio_set sched_setscheduler sched_setattr "
    "sched_setparam"
).split()
# The calls of Linux 5.10 and later, by number since an older libseccomp has no name for them. No
# program here needs one, some change files, and those still to come are not known to be safe.
LATER = range(440, 512)
