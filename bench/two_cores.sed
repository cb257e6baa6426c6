# The published systems on two CPU cores, within an hour each: half the side, a half to a fifth of the epochs.
#     sed -f bench/two_cores.sed recipes/systems/deep_covid.yaml > deep_covid.yaml
s/^preprocess: {size: 224}.*/preprocess: {size: 112}/
/^name: deep-covid/,$s/epochs: 30$/epochs: 15/
/^name: covid-densenet/,$s/epochs: 30$/epochs: 15/
/^name: abdukarimov2021/,$s/epochs: 30$/epochs: 10/
/^name: bassi2021/,$s/epochs: 30$/epochs: 10/
/^name: bassi2021/,$s/^  epochs: 20$/  epochs: 8/
# 17 of each COVID-19 film: an epoch is almost three of the other recipes'.
/^name: wang2020/,$s/^  epochs: 20$/  epochs: 4/
/^name: wang2020/,$s/epochs: 8,/epochs: 2,/
