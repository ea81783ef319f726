// What is asked of NVIDIA's management library, libnvidia-ml.so.1.
#include <stdio.h>

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { return snprintf(version, length, "590.44.01") < 0; }
