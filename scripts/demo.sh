#!/usr/bin/env bash
# Label the lobes of a chest CT: bash scripts/demo.sh [SCAN] [--device cuda] [any other option of inference.json]
# SCAN is a CT file, a DICOM folder or a folder of scans; without one a synthetic chest is made first.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=scripts/env.sh
. "$here/env.sh"

scan=""
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
    scan=$1
    shift
    if [ ! -e "$scan" ]; then
        printf 'pulmozoo: %s does not exist: expected a CT file, a DICOM folder or a folder of scans\n' "$scan" >&2
        exit 1
    fi
    scan=$(cd "$(dirname "$scan")" && pwd)/$(basename "$scan")
fi

extras=""
if [ -d "$scan" ]; then
    extras="dicom,itk"
else
    case "$scan" in
    "" | *.nii | *.nii.gz) ;;
    *.mha | *.mhd | *.nrrd) extras="itk" ;;
    *) extras="dicom" ;;
    esac
fi
ensure_env "$extras"

if [ -z "$scan" ]; then
    printf 'Making a synthetic chest CT ...\n'
    pulmozoo phantom "$root/out/phantom" --count 1 --seed 2026 --spacing_mm "(1.5, 1.5, 3.0)"
    scan="$root/out/phantom/images/phantom_00000.nii.gz"
fi

cd "$root/bundles/lung_lobe_ct_segmentation"
python -m monai.bundle run --config_file configs/inference.json \
    --dataset_dir "$scan" --output_dir "$root/out/demo" "$@"
pulmozoo show "$root/out/demo"
