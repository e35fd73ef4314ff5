/* SPDX-License-Identifier: Apache-2.0 */
/* power_cut DIR: ext4 under DIR forgets all it has not written, as if the power had gone. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define WITHOUT_FLUSHING_THE_LOG 2u

int main(int argc, char **argv) {
    uint32_t how = WITHOUT_FLUSHING_THE_LOG;
    const int fd = open(argc > 1 ? argv[1] : ".", O_RDONLY | O_DIRECTORY);

    if (fd < 0 || ioctl(fd, EXT4_IOC_SHUTDOWN, &how) != 0) {
        perror("power_cut");
        return 1;
    }
    return 0;
}
