/* Linked into the test programs of sanitizer builds: keeps leaks of the Vulkan driver out of the leak report. They can
 * be told from ours by their module only, which must therefore stay mapped after the Vulkan loader has dropped it. */
#include <dlfcn.h>

const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:libvulkan_lvp.so\nleak:libLLVM\nleak:libVkLayer_khronos_validation.so\n";
}

__attribute__((constructor)) static void keep_driver(void)
{
    dlopen("libvulkan_lvp.so", RTLD_LAZY | RTLD_NODELETE);
}
