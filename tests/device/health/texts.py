"""What devices answer, in the layouts of AOSP, of makers and of the kernel.

No phone was at hand: layouts, names and oddities of values are those of public reports, which each
text names; most are shortened, and numbers are changed where that makes a test plainer.
"""

from __future__ import annotations

# After AOSP's ThermalManagerService.dump (Android 12), with a Pixel's sensors as recorded in
# the tests of Skia's machine server (2021): types 6 to 8 are not degrees, `soc` is a percentage,
# and the cached values are older and hotter.
PIXEL_THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 8
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=11900.0, mType=7, mName=ocp_gpu, mStatus=0}
\tTemperature{mValue=61.000004, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=42.771002, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
\tTemperature{mValue=19.0, mType=8, mName=soc, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=8900.0, mType=7, mName=soft_ocp_cpu2, mStatus=0}
\tTemperature{mValue=1300.0, mType=6, mName=smpl_gm, mStatus=0}
\tTemperature{mValue=82.0, mType=8, mName=soc, mStatus=0}
\tTemperature{mValue=0.0, mType=-1, mName=FLASH_LED_REDUCE, mStatus=0}
\tTemperature{mValue=26.000002, mType=1, mName=G3D, mStatus=0}
\tTemperature{mValue=46.000002, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=37.000002, mType=0, mName=LITTLE, mStatus=0}
\tTemperature{mValue=-0.117000006, mType=-1, mName=USB2-MINUS-USB, mStatus=0}
\tTemperature{mValue=34.83324, mType=5, mName=cellular-emergency, mStatus=0}
\tTemperature{mValue=31.83324, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
\tTemperature{mValue=52.0, mType=-1, mName=disp_therm, mStatus=0}
\tTemperature{mValue=28.1, mType=2, mName=battery, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHot=[NaN, 39.0, 43.0, 45.0]}
"""

# A Galaxy A52 5G with Android 12, as recorded at android.stackexchange.com/questions/246774:
# sensors that are absent say 0, and `AP` is the processor's.
SAMSUNG_THERMAL = """IsStatusOverride: false
ThermalEventListeners:
        callbacks: 1
        killed: false
        broadcasts count: -1
ThermalStatusListeners:
        callbacks: 4
        killed: false
        broadcasts count: -1
Thermal Status: 0
Cached temperatures:
        Temperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
        Temperature{mValue=35.6, mType=0, mName=AP, mStatus=0}
HAL Ready: true
HAL connection:
        ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
        Temperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
        Temperature{mValue=23.8, mType=2, mName=BAT, mStatus=0}
        Temperature{mValue=24.7, mType=3, mName=LRB, mStatus=0}
        Temperature{mValue=24.9, mType=3, mName=LRP, mStatus=0}
        Temperature{mValue=25.7, mType=5, mName=PA, mStatus=0}
        Temperature{mValue=0.0, mType=2, mName=SUBBATRAW, mStatus=0}
        Temperature{mValue=0.0, mType=4, mName=USB, mStatus=0}
Current cooling devices from HAL:
Temperature static thresholds from HAL:
"""

# A Samsung with Android 10, as recorded in Skia's machine tests: types count from 1.
SAMSUNG_10_THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
 Temperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
\tTemperature{mValue=24.0, mType=1, mName=TYPE_CPU, mStatus=0}
HAL Ready: true
HAL connection:
\tSdhms connected: yes
Current temperatures from HAL:
\tTemperature{mValue=44.0, mType=1, mName=TYPE_CPU, mStatus=0}
\tTemperature{mValue=34.4, mType=3, mName=TYPE_BATTERY, mStatus=0}
\tTemperature{mValue=25.3, mType=4, mName=TYPE_SKIN, mStatus=0}
\tTemperature{mValue=24.2, mType=5, mName=TYPE_USB_PORT, mStatus=0}
\tTemperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=TYPE_CPU}
"""

# A Xiaomi 13T Pro with Android 16, as recorded in a test of github.com's DtHub; its status is ours.
XIAOMI_THERMAL = """IsStatusOverride: false
Thermal Status: 3
Cached temperatures:
\tTemperature{mValue=84.208, mType=0, mName=CPU, mStatus=0}
\tTemperature{mValue=48.517, mType=3, mName=SKIN, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=57.9, mType=0, mName=CPU, mStatus=0}
\tTemperature{mValue=34.351, mType=3, mName=SKIN, mStatus=0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHot=[NaN, NaN, NaN, 50.0]}
"""

# A Qualcomm phone as recorded in Skia's machine tests, its status ours: the sensor of its skin is
# called after the board.
QUALCOMM_THERMAL = """Thermal Status: 1
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=28.000002, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=33.800003, mType=0, mName=cpu0-gold-usr, mStatus=0}
\tTemperature{mValue=44.1, mType=0, mName=cpu1-silver-usr, mStatus=0}
\tTemperature{mValue=30.147001, mType=3, mName=mb-therm-monitor, mStatus=0}
"""

# Where the framework has no thermal HAL (Waydroid, some Qualcomm and MediaTek phones): all it says.
NO_HAL_THERMAL = """IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
HAL Ready: false
"""
NO_SERVICE = "Can't find service: thermalservice\n"  # Android 9 and before

# After AOSP's BatteryService.dumpInternal (Android 13).
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 2448973
  status: 2
  health: 2
  present: true
  level: 82
  scale: 100
  voltage: 4248
  temperature: 295
  technology: Li-ion
"""

# A Samsung's, as recorded in github.com/zebrunner/mcloud-device/issues/150: its own keys follow,
# and repeat AOSP's in lower case.
SAMSUNG_BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 0
  Charge counter: 2967000
  status: 5
  health: 2
  present: true
  level: 100
  scale: 100
  voltage: 4312
  temperature: 309
  technology: Li-ion
  batteryMiscEvent: 65536
  mSecPlugTypeSummary: 2
  LED Charging: true
  current now: 0
USE_FAKE_BATTERY: false
LLB CURRENT: YEAR2023M8D9
BatteryInfoBackUp
  mSavedBatteryMaxTemp: 534
"""

# As recorded in github.com/hrw/arm-socs-table/issues/178 (Dimensity 7400), shortened.
_A55 = """BogoMIPS\t: 26.00
Features\t: fp asimd evtstrm aes pmull crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x2
CPU part\t: 0xd05
CPU revision\t: 0
"""
_A78 = _A55.replace("0xd05", "0xd41").replace("0x2", "0x1")
DIMENSITY_CPUINFO = "".join(f"processor\t: {at}\n{_A55 if at < 4 else _A78}\n" for at in range(8))

# As recorded in github.com/hrw/arm-socs-table/issues/25 (Jetson TX2), shortened: a cluster in two.
_A57 = """model name\t: ARMv8 Processor rev 3 (v8l)
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd07
CPU revision\t: 3
"""
_DENVER = _A57.replace("0x41", "0x4e").replace("0xd07", "0x003") + "MTS version\t: 37620520\n"
TX2_CPUINFO = "".join(
    f"processor\t: {at}\n{_DENVER if at in (1, 2) else _A57}\n" for at in range(6)
)

# A Raspberry Pi 5's, written after the kernel's layout for arm64 with Raspberry Pi's lines below.
PI5_CPUINFO = (
    "".join(
        f"""processor\t: {at}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
        for at in range(4)
    )
    + "Revision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)

# A Nexus 5 (32-bit, kernel 3.4), as quoted in many introductions to adb: one part for all cores.
NEXUS5_CPUINFO = """Processor       : ARMv7 Processor rev 0 (v7l)
processor       : 0
BogoMIPS        : 38.40

processor       : 1
BogoMIPS        : 38.40

processor       : 2
BogoMIPS        : 38.40

processor       : 3
BogoMIPS        : 38.40

Features        : swp half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt
CPU implementer : 0x51
CPU architecture: 7
CPU variant     : 0x2
CPU part        : 0x06f
CPU revision    : 0

Hardware        : Qualcomm MSM 8974 HAMMERHEAD (Flattened Device Tree)
Revision        : 000b
"""

# This project's machine for building (recorded on it, shortened).
EPYC_CPUINFO = "".join(
    f"""processor\t: {at}
vendor_id\t: AuthenticAMD
model\t\t: 2
model name\t: AMD EPYC
cpu MHz\t\t: 2596.096
flags\t\t: fpu vme avx2 avx512f avx_vnni avx512_vnni hypervisor

"""
    for at in range(2)
)

# In getprop's layout; values of the models, put together from public reports.
PIXEL_PROPERTIES = """[ro.board.platform]: [zuma]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.hardware]: [husky]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8 Pro]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
"""
SAMSUNG_PROPERTIES = """[ro.board.platform]: [exynos9611]
[ro.build.version.release]: [11]
[ro.build.version.sdk]: [30]
[ro.hardware]: [exynos9611]
[ro.product.manufacturer]: [samsung]
[ro.product.model]: [SM-M307F]
"""
XIAOMI_PROPERTIES = """[ro.board.platform]: [taro]
[ro.build.version.release]: [13]
[ro.build.version.sdk]: [33]
[ro.hardware]: [qcom]
[ro.product.manufacturer]: [Xiaomi]
[ro.product.marketname]: [Xiaomi 12 Pro]
[ro.product.model]: [2201122G]
[ro.soc.manufacturer]: [QTI]
[ro.soc.model]: [SM8450]
"""
EMULATOR_PROPERTIES = """[ro.build.characteristics]: [emulator]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.hardware]: [ranchu]
[ro.kernel.qemu]: [1]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [sdk_gphone64_arm64]
"""
